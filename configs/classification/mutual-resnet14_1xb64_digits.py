"""Handwritten digits of 8 x 8 pixels on a CPU, for tests and small studies.

    mutualnet train THIS_CONFIG

mutualnet_mm.datasets.digits.make_digits('data/digits') makes the images; a
minute of training on two cores. They are so easy that the smallest subnet is
as good as the full one: mutual-resnet14_1xb64_cluttered-digits.py is the
two-minute example.

Not in the paper: digits, here.
Cost: 1.0x-16 6.7 M, 0.25x-8 232 K MACs; a step 1.77 x the full network's.
"""

_base_ = ['../_base_/small_cpu.py']

size, epochs = 16, 20
model = dict(
    mutual=dict(width_range=(0.25, 1.0), resolution=(size, 12, 8)),
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
    backbone=dict(
        type='mutualnet_mm.SlimmableResNet_CIFAR',
        depth=18,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        stem_channels=16,
        base_channels=16,
    ),
    head=dict(in_channels=64),
)

data = dict(data_root='data/digits')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=size, padding=2),
    dict(type='PackInputs'),  # no flip: a mirrored digit is not a digit
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    dataset=dict(data_prefix='train', pipeline=train_pipeline, **data)
)
val_dataloader = dict(
    dataset=dict(data_prefix='val', pipeline=test_pipeline, **data)
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
    subnets=['1.0x-16', '0.75x-16', '0.5x-12', '0.25x-12', '0.25x-8']
)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1)
)
randomness = dict(seed=0)
