"""Digits on cluttered photographs, on a CPU: the two-minute example.

mutualnet quickstart --task cls makes the images and runs it.

Not in the paper: digits on photographs, here.
Cost: 1.0x-32 7.1 M, 0.25x-16 278 K MACs; a step 1.80 x the full network's.
"""

_base_ = ['mutual-resnet14_1xb64_digits.py']

size, epochs = 32, 10
model = dict(
    mutual=dict(resolution=(size, 24, 16)),
    backbone=dict(strides=(2, 2, 2)),
)

data = dict(data_root='data/cluttered_digits')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=size, padding=4),
    dict(type='PackInputs'),  # no flip: a mirrored digit is not a digit
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **data))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **data))
test_dataloader = val_dataloader

# It finds digits in the clutter sooner than SGD.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-3, weight_decay=0.05),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.1,
        end=1,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=epochs - 1,
        begin=1,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
test_cfg = dict(
    subnets=['1.0x-32', '0.75x-32', '0.5x-24', '0.25x-24', '0.25x-16']
)
