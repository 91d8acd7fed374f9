"""WRN-28-10 on CIFAR-100 with AutoAugment, a rival of Table 7.

    mutualnet train THIS_CONFIG

Paper: Table 7.
Cost: 1.0x-32 5.2 G MACs.
"""

_base_ = [
    'wrn28-10_1xb128_cifar100.py',
    '../_base_/datasets/cifar_autoaugment.py',
]

# Followed by Cutout of 16 x 16, as in the AutoAugment paper on CIFAR.
train_pipeline = _base_.train_pipeline
train_pipeline[2:2] = [
    dict(type='AutoAugment', policies=_base_.cifar_policies),
    dict(type='Cutout', shape=16, pad_val=(129, 124, 112), prob=1.0),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
