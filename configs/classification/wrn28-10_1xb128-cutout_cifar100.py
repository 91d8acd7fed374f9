"""WRN-28-10 on CIFAR-100 with Cutout, a rival of Table 7.

    mutualnet train THIS_CONFIG

Paper: Table 7.
Cost: 1.0x-32 5.2 G MACs.
"""

_base_ = ['wrn28-10_1xb128_cifar100.py']

# As published: 8 x 8 for CIFAR-100, which may reach over the border.
train_pipeline = _base_.train_pipeline
train_pipeline.insert(
    2, dict(type='Cutout', shape=8, pad_val=(129, 124, 112), prob=1.0)
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
