"""MobileNetV2 with another lower width bound: widths [0.8, 1.0].

torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG
"""

_base_ = ['mutual-mobilenet-v2_8xb128_in1k.py']

model = dict(mutual=dict(width_range=(0.8, 1.0)))
test_cfg = dict(subnets=['1.0x-224', '0.8x-128'])
