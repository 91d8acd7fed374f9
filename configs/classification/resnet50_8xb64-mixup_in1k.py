"""ResNet-50 on ImageNet with Mixup, a rival of Table 7.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Table 7.
Cost: 1.0x-224 4.1 G MACs.
"""

_base_ = ['resnet50_8xb64_in1k.py']

model = dict(
    head=dict(loss=dict(use_soft=True)),
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.2)),
)
