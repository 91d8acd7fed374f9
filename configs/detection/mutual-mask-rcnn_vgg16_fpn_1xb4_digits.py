"""The paper's experiment, small enough for two CPU cores: the quick start.

    mutualnet quickstart

Handwritten digits on photographs (mutualnet quickstart makes them), 128 x 192
pixels, a slim neck, small heads and few RoIs, from scratch.

Not in the paper: digits, here.
Cost: 1.0x-128 7.9 G, 0.25x-64 197 M MACs; a step 1.33 x the full network's.
"""

_base_ = [
    '../mutual_mask_rcnn_vgg16.py',
    '../_base_/datasets/digit_scenes.py',
]

channels = 128
model = dict(
    mutual=dict(resolution=(128, 96, 64), num_random=1),
    neck=dict(out_channels=channels),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(
            in_channels=channels, fc_out_channels=512, num_classes=10
        ),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=64,
            num_classes=10,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=50), rcnn=dict(max_per_img=10)
    ),
)

resize = dict(type='Resize', scale=(192, 128), keep_ratio=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    resize,
    dict(type='PackDetInputs'),  # no flip: a mirrored digit is not a digit
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    _base_.digits_packed,
]
train_dataloader = dict(
    batch_size=4,
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

train_cfg = dict(max_epochs=4, val_interval=10)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=4e-4, weight_decay=1e-4)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=250,
        end=400,
        eta_min=2e-5,
    ),
]
default_hooks = dict(logger=dict(interval=10))
custom_hooks = [dict(type='mutualnet_mm.BNCalibrationHook', num_batches=25)]
randomness = dict(seed=0)
test_cfg = dict(
    subnets=[
        '1.0x-128',
        '0.75x-128',
        '0.75x-96',
        '0.5x-96',
        '0.5x-64',
        '0.25x-96',
        '0.25x-64',
    ]
)
