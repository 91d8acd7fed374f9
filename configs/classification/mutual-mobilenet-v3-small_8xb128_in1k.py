"""MobileNetV3-Small instead of Large.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: accuracy against MACs on ImageNet.
Cost: 1.0x-224 56.8 M, 0.7x-128 12.3 M MACs; a step 2.46 x the full network's.
"""

_base_ = ['mutual-mobilenet-v3-large_8xb128_in1k.py']

model = dict(
    backbone=dict(arch='small'),
    head=dict(in_channels=576, mid_channels=[1024]),
)
