"""A small experiment for a CPU: WRN-10-2 on CIFAR-10 at 16 x 16 pixels.

    python projects/cifar10.py DATA --out DIR

projects/cifar10.py prepares the images and derives every method that
it compares from this config.

Not in the paper: the methods compared, here.
Cost: 1.0x-16 11.1 M, 0.25x-10 362 K MACs; a step 1.74 x the full network's.
"""

_base_ = ['../_base_/small_cpu.py']

size, epochs = 16, 64
model = dict(
    mutual=dict(width_range=(0.25, 1.0), resolution=(size, 14, 12, 10)),
    data_preprocessor=dict(
        num_classes=10,
        mean=[125.307, 122.961, 113.8575],
        std=[51.5865, 50.847, 51.255],
        to_rgb=True,
    ),
    backbone=dict(
        type='mutualnet_mm.SlimmableWideResNet', depth=10, widen_factor=2
    ),
    head=dict(in_channels=128),
)

data = dict(data_root='data/cifar10_16px/')
# After the augmentation, which thus does not depend on the resolution.
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
    dataset=dict(ann_file='train.txt', pipeline=train_pipeline, **data)
)
val_dataloader = dict(
    dataset=dict(ann_file='test.txt', pipeline=test_pipeline, **data)
)
test_dataloader = val_dataloader

param_scheduler = dict(
    type='CosineAnnealingLR',
    T_max=epochs,
    end=epochs,
    by_epoch=True,
    convert_to_iter_based=True,
)
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=epochs)
test_cfg = dict(
    subnets=[
        f'{width}x-{side}'
        for width in (1.0, 0.75, 0.5, 0.25)
        for side in (16, 14, 12, 10)
    ]
)
