"""WRN-28-10 on CIFAR-100 with Mixup, a rival of Table 7.

    mutualnet train THIS_CONFIG

Paper: Table 7.
Cost: 1.0x-32 5.2 G MACs.
"""

_base_ = ['wrn28-10_1xb128_cifar100.py']

model = dict(
    head=dict(loss=dict(type='CrossEntropyLoss', use_soft=True)),
    train_cfg=dict(augments=dict(type='Mixup', alpha=1.0)),
)
