"""Mask R-CNN with a slimmable VGG-16 BN backbone, as in the paper (Sec. 4.4).

COCO, widths [0.25, 1.0], images of 1000 x {600, 480, 360, 240}, 2x schedule,
every subnet supervised by the ground truth. The backbone starts from the
ImageNet pre-training beside this file (classification/mutual-vgg16bn_8xb32_
in1k.py), or from a stock VGG-16 BN checkpoint of mmpretrain:

    python tools/train.py configs/mutual_mask_rcnn_vgg16.py \
        --cfg-options model.backbone.init_cfg.checkpoint=PATH

It is loaded strictly. Without a path the network is trained from scratch.
"""

_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py']

custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

resolution = (600, 480, 360, 240)
scale = (1000, 600)

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='MaskRCNN',
    mutual=dict(
        width=(0.25, 1.0),
        resolution=resolution,
        num_random=2,
        supervision='label',
    ),
    backbone=dict(
        _delete_=True,
        type='mutualnet_mm.SlimmableVGG',
        depth=16,
        norm_cfg=dict(type='BN'),
        out_indices=(1, 2, 3, 4),
        init_cfg=dict(type='Pretrained', checkpoint=None),
    ),
    neck=dict(in_channels=[128, 256, 512, 512]),
)

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=scale, keep_ratio=True),
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

# During training the full and the smallest network are watched; the test
# shows the whole range.
val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop',
    subnets=[
        '1.0x-600',
        '1.0x-480',
        '0.75x-600',
        '0.75x-480',
        '0.5x-480',
        '0.5x-360',
        '0.25x-360',
        '0.25x-240',
    ],
)
custom_hooks = [dict(type='mutualnet_mm.BNCalibrationHook', num_batches=32)]
