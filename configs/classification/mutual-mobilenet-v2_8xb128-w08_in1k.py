"""MobileNetV2 with another lower width bound: widths [0.8, 1.0].

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Fig. 13.
Cost: 1.0x-224 301 M, 0.8x-128 73.5 M MACs; a step 2.62 x the full network's.
"""

_base_ = ['mutual-mobilenet-v2_8xb128_in1k.py']

model = dict(mutual=dict(width_range=(0.8, 1.0)))
test_cfg = dict(subnets=['1.0x-224', '0.8x-128'])
