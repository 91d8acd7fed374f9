"""Individually trained baseline (I-Net): one width, one resolution.

WIDTH=0.5 RESOLUTION=360 python tools/train.py THIS_CONFIG
"""

_base_ = ['../mutual_mask_rcnn_vgg16.py']

width = {{'$WIDTH:1.0'}}
resolution = {{'$RESOLUTION:600'}}

model = dict(
    mutual=dict(width=(width,), resolution=(resolution,), num_random=0)
)

resize = dict(type='Resize', scale=(1000, resolution), keep_ratio=True)
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    resize,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    resize,
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
        ),
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
test_cfg = dict(subnets=None)
