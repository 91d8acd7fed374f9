"""CIFAR-100 for networks trained on ImageNet: enlarged to 224 x 224.

Downloaded to ``data/cifar100`` on first use.
"""

_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_pil_resize.py']

# The data set holds the images themselves, in RGB already. The statistics
# stay ImageNet's, which the network was trained with.
data_preprocessor = dict(num_classes=100, to_rgb=False)
train_pipeline = _base_.train_pipeline[1:]
test_pipeline = _base_.test_pipeline[1:]
train_dataloader = dict(
    batch_size=256,
    dataset=dict(
        type='CIFAR100', data_root='data/cifar100', pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=256,
    dataset=dict(
        type='CIFAR100',
        data_root='data/cifar100',
        split='test',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
