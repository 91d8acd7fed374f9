"""YOLOX with a quarter of its channels, on handwritten digits, for a CPU.

    mutualnet train mutualnet_mm::detection/mutual-yolox-thin_1xb8_digits.py

With Mosaic, random affine maps and another random size for every few batches,
all switched off for the last epochs. Scenes of digits on photographs in
squares of 192 pixels, from scratch; _base_/datasets/digit_scenes.py says what
makes them.

Not in the paper: digits, here.
Cost: 1.0x-192 195 M, 0.25x-128 34.2 M MACs; a step 1.76 x the full network's.
"""

_base_ = [
    'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
    '../_base_/datasets/digit_scenes.py',
]
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

size, channels = 192, 64
model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='YOLOX',
    mutual=dict(
        width_range=(0.25, 1.0), resolution=(192, 160, 128), num_random=1
    ),
    data_preprocessor=dict(
        batch_augments=[
            dict(
                type='BatchSyncRandomResize',
                random_size_range=(160, 224),
                size_divisor=32,
                interval=5,
            )
        ]
    ),
    backbone=dict(
        type='mutualnet_mm.Slimmable', wraps='CSPDarknet', widen_factor=0.25
    ),
    neck=dict(in_channels=[64, 128, 256], out_channels=channels),
    bbox_head=dict(
        num_classes=10, in_channels=channels, feat_channels=channels
    ),
)

pad = dict(
    type='Pad', pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0))
)
# No flip: a mirrored digit is not a digit.
train_pipeline = [
    dict(type='Mosaic', img_scale=(size, size), pad_val=114.0),
    dict(
        type='RandomAffine',
        max_rotate_degree=0,
        max_shear_degree=0,
        scaling_ratio_range=(0.7, 1.5),
        border=(-size // 2, -size // 2),
    ),
    dict(type='YOLOXHSVRandomAug'),
    dict(type='Resize', scale=(size, size), keep_ratio=True),
    pad,
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False),
    dict(type='PackDetInputs'),
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
    dataset=dict(
        dataset=dict(**_base_.digits_train),
        pipeline=train_pipeline,
    ),
    **_base_.digits_loader,
)
val_dataloader = dict(
    dataset=dict(pipeline=test_pipeline, **_base_.digits_val),
    **_base_.digits_loader,
)
test_dataloader = val_dataloader
val_evaluator = _base_.digits_evaluator
test_evaluator = val_evaluator

max_epochs, last_epochs = 16, 4
train_cfg = dict(
    _delete_=True, type='EpochBasedTrainLoop', max_epochs=max_epochs
)
val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop',
    subnets=['1.0x-192', '0.5x-160', '0.25x-128'],
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05)
)
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
    dict(type='YOLOXModeSwitchHook', num_last_epochs=last_epochs, priority=48),
    dict(type='mutualnet_mm.BNCalibrationHook', num_batches=25),
]
randomness = dict(seed=0)
