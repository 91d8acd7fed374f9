"""SE-ResNet-50 on ImageNet, a rival of Table 7.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Table 7.
"""

_base_ = ['resnet50_8xb64_in1k.py']

model = dict(backbone=dict(type='SEResNet'))
