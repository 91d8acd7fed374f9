"""A small experiment for a CPU: WRN-10-2 on CIFAR-10 at 16 x 16 pixels.

tools/cifar10/run.py prepares the images and derives every method that
it compares from this config.
"""

_base_ = ['mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

size = 16
epochs = 64
data_root = 'data/cifar10_16px/'

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    mutual=dict(width=(0.25, 1.0), resolution=(16, 14, 12, 10)),
    data_preprocessor=dict(
        num_classes=10,
        mean=[125.307, 122.961, 113.8575],
        std=[51.5865, 50.847, 51.255],
        to_rgb=True,
    ),
    backbone=dict(
        type='mutualnet_mm.SlimmableWideResNet', depth=10, widen_factor=2
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
)

# Behind the augmentation: what it does depends on no resolution.
resize = dict(type='Resize', scale=size, interpolation='area')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=size, padding=size // 8),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    resize,
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        ann_file='train.txt',
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        ann_file='test.txt',
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    ),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(
    type='CosineAnnealingLR',
    T_max=epochs,
    end=epochs,
    by_epoch=True,
    convert_to_iter_based=True,
)
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=epochs)
val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop',
    subnets=[
        f'{width}x-{side}'
        for width in (1.0, 0.75, 0.5, 0.25)
        for side in (16, 14, 12, 10)
    ],
)
custom_hooks = [dict(type='mutualnet_mm.BNCalibrationHook', num_batches=16)]
