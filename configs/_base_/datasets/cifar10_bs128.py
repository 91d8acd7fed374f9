"""CIFAR-10 with borders reflected, as published for Wide ResNets."""

_base_ = ['mmpretrain::_base_/datasets/cifar10_bs16.py']

train_pipeline = _base_.train_pipeline
train_pipeline[0].padding_mode = 'reflect'
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=128)
test_dataloader = val_dataloader
