"""The paper's main experiment: MobileNetV1, ImageNet, widths [0.25, 1.0].

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

The points named in the paper are tested; --subnet of mutualnet test names
others.

Paper: Fig. 7 and 8.
Cost: 1.0x-224 569 M, 0.25x-128 13.6 M MACs; a step 1.63 x the full network's.
"""

_base_ = [
    '../_base_/models/mutual_mobilenet_v1.py',
    '../_base_/datasets/imagenet_bs128_mobile.py',
    '../_base_/schedules/imagenet_bs1024_250e.py',
    '../_base_/mutual_runtime.py',
]
test_cfg = dict(subnets=['1.0x-224', '0.7x-160', '0.25x-128'])
