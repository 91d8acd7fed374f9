"""ResNet-50 on ImageNet, widths [0.7, 1.0].

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: accuracy against MACs on ImageNet.
Cost: 1.0x-224 4.1 G, 0.7x-128 662 M MACs; a step 2.26 x the full network's.
"""

_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    '../_base_/datasets/imagenet_bs64_jitter.py',
    '../_base_/schedules/imagenet_bs512_120e.py',
    '../_base_/mutual_runtime.py',
]

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    mutual=dict(width_range=(0.7, 1.0), resolution=(224, 192, 160, 128)),
    backbone=dict(type='mutualnet_mm.SlimmableResNet'),
)
test_cfg = dict(subnets=['1.0x-224', '0.7x-128'])
