"""MobileNetV3-Small instead of Large.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: accuracy against MACs on ImageNet.
"""

_base_ = ['mutual-mobilenet-v3-large_8xb128_in1k.py']

model = dict(
    backbone=dict(arch='small'),
    head=dict(in_channels=576, mid_channels=[1024]),
)
