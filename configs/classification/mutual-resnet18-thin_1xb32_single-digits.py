"""A small experiment for a CPU: one digit, tiny to large, in 96 x 96 pixels.

    mutualnet train THIS_CONFIG

For class activation maps: global pooling, and a last map of 12 x 12 points
that each see more than the image. projects/single_objects.py makes the images.

Not in the paper: digits, here.
Cost: 1.0x-96 34.3 M, 0.25x-48 1.4 M MACs; a step 1.76 x the full network's.
"""

_base_ = ['../_base_/small_cpu.py']

size, epochs = 96, 12
model = dict(
    mutual=dict(width_range=(0.25, 1.0), resolution=(size, 80, 64, 48)),
    data_preprocessor=dict(
        num_classes=10,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='mutualnet_mm.Slimmable',
        wraps='ResNet',
        depth=18,
        num_stages=3,
        strides=(1, 2, 1),
        dilations=(1, 1, 1),
        out_indices=(2,),
        stem_channels=16,
        base_channels=16,
    ),
    head=dict(in_channels=64),
)

classes = tuple('0123456789')
data = dict(data_root='data/single_digits', metainfo=dict(classes=classes))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size),
    dict(type='PackInputs'),  # no flip: a mirrored digit is not a digit
]
test_pipeline = train_pipeline
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        data_prefix='train',
        ann_file='train.txt',
        pipeline=train_pipeline,
        **data,
    ),
)
val_dataloader = dict(
    batch_size=100,
    dataset=dict(
        data_prefix='val', ann_file='val.txt', pipeline=test_pipeline, **data
    ),
)
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=0.05))
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
        f'{width}x-{side}' for width in (1.0, 0.5, 0.25) for side in (size, 48)
    ]
)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1)
)
randomness = dict(seed=0)
