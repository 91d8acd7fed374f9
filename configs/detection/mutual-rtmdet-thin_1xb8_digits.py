"""RTMDet with a quarter of its channels, on handwritten digits, for a CPU.

    mutualnet train mutualnet_mm::detection/mutual-rtmdet-thin_1xb8_digits.py

What a detector trains with today: Mosaic, random sizes and crops, switched off
for the last epochs. Scenes of digits on photographs in squares of 192 pixels,
from scratch; _base_/datasets/digit_scenes.py says what makes them.

Not in the paper: digits, here.
Cost: 1.0x-192 209 M, 0.25x-128 51.1 M MACs; a step 1.93 x the full network's.
"""

_base_ = [
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    '../_base_/datasets/digit_scenes.py',
]
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

size, channels = 192, 64
model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='RTMDet',
    mutual=dict(
        width_range=(0.25, 1.0), resolution=(192, 160, 128), num_random=1
    ),
    backbone=dict(
        type='mutualnet_mm.Slimmable',
        wraps='CSPNeXt',
        widen_factor=0.25,
        norm_cfg=dict(type='BN'),
        init_cfg=None,
    ),
    neck=dict(
        in_channels=[64, 128, 256],
        out_channels=channels,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(
        num_classes=10,
        in_channels=channels,
        feat_channels=channels,
        norm_cfg=dict(type='BN'),
    ),
    test_cfg=dict(nms_pre=1000, max_per_img=30),
)

pad = dict(type='Pad', size=(size, size), pad_val=dict(img=(114, 114, 114)))
load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
]
# A mosaic has four images, of which a crop sees about one.
resize = dict(type='RandomResize', ratio_range=(0.5, 1.2), keep_ratio=True)
# No flip: a mirrored digit is not a digit.
crop = [
    dict(type='RandomCrop', crop_size=(size, size)),
    dict(type='YOLOXHSVRandomAug'),
    pad,
    dict(type='PackDetInputs'),
]
train_pipeline = [
    *load,
    dict(
        type='CachedMosaic',
        img_scale=(size, size),
        pad_val=114.0,
        max_cached_images=20,
        random_pop=False,
    ),
    dict(resize, scale=(2 * size, 2 * size)),
    *crop,
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(size, size), keep_ratio=True),
    pad,
    dict(type='LoadAnnotations', with_bbox=True),
    _base_.digits_packed,
]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(pipeline=train_pipeline, **_base_.digits_train),
    **_base_.digits_loader,
)
val_dataloader = dict(
    dataset=dict(pipeline=test_pipeline, **_base_.digits_val),
    **_base_.digits_loader,
)
test_dataloader = val_dataloader
val_evaluator = _base_.digits_evaluator
test_evaluator = val_evaluator

max_epochs = 40
train_cfg = dict(
    _delete_=True,
    type='EpochBasedTrainLoop',
    max_epochs=max_epochs,
    val_interval=10,
)
val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop',
    subnets=['1.0x-192', '0.5x-160', '0.25x-128'],
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        begin=max_epochs // 2,
        end=max_epochs,
        T_max=max_epochs // 2,
        eta_min=1e-4,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=max_epochs)
)
custom_hooks = [
    dict(
        type='PipelineSwitchHook',
        switch_epoch=max_epochs - 4,
        switch_pipeline=[*load, dict(resize, scale=(size, size)), *crop],
    ),
    dict(type='mutualnet_mm.BNCalibrationHook', num_batches=25),
]
randomness = dict(seed=0)
