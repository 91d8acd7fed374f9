"""WRN-28-10 on CIFAR-10 with Cutout, a rival of Table 7.

    mutualnet train THIS_CONFIG

Paper: Table 7.
Cost: 1.0x-32 5.2 G MACs.
"""

_base_ = ['wrn28-10_1xb128_cifar10.py']

# As published: 16 x 16 for CIFAR-10, which may reach over the border.
train_pipeline = _base_.train_pipeline
train_pipeline.insert(
    2, dict(type='Cutout', shape=16, pad_val=(125, 123, 114), prob=1.0)
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
