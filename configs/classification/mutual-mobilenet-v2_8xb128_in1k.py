"""MobileNetV2 on ImageNet, widths [0.7, 1.0].

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: accuracy against MACs on ImageNet.
Cost: 1.0x-224 301 M, 0.7x-128 57.6 M MACs; a step 2.42 x the full network's.
"""

_base_ = [
    'mmpretrain::_base_/models/mobilenet_v2_1x.py',
    '../_base_/datasets/imagenet_bs128_mobile.py',
    '../_base_/schedules/imagenet_bs1024_250e.py',
    '../_base_/mutual_runtime.py',
]

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    mutual=dict(width_range=(0.7, 1.0), resolution=(224, 192, 160, 128)),
    backbone=dict(type='mutualnet_mm.SlimmableMobileNetV2'),
)
test_cfg = dict(subnets=['1.0x-224', '0.7x-128'])
