"""MobileNetV3-Large on ImageNet, widths [0.7, 1.0] as for MobileNetV2.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: accuracy against MACs on ImageNet.
Cost: 1.0x-224 217 M, 0.7x-128 41.7 M MACs; a step 2.37 x the full network's.
"""

_base_ = [
    'mmpretrain::_base_/models/mobilenet_v3/mobilenet_v3_large_imagenet.py',
    '../_base_/datasets/imagenet_bs128_mobile.py',
    '../_base_/schedules/imagenet_bs1024_150e.py',
    '../_base_/mutual_runtime.py',
]

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    mutual=dict(width_range=(0.7, 1.0), resolution=(224, 192, 160, 128)),
    backbone=dict(type='mutualnet_mm.SlimmableMobileNetV3'),
)
test_cfg = dict(subnets=['1.0x-224', '0.7x-128'])
