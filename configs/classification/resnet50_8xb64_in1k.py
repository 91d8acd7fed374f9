"""ResNet-50 on ImageNet, trained as usual: Table 7's baseline.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Table 7.
Cost: 1.0x-224 4.1 G MACs.
"""

_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    '../_base_/datasets/imagenet_bs64_jitter.py',
    '../_base_/schedules/imagenet_bs512_120e.py',
    '../_base_/plain_runtime.py',
]
