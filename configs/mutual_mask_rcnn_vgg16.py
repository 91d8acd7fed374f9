"""Mask R-CNN with a slimmable VGG-16 BN backbone, the paper's experiment.

COCO, widths [0.25, 1.0], images of 1000 x {600, 480, 360, 240}, 2x schedule,
every subnet supervised by the ground truth. The backbone starts from ImageNet
pre-training, mutual (classification/mutual-vgg16bn_8xb32_in1k.py) or stock
(mmpretrain's vgg16bn), which is loaded strictly:

    mutualnet train \
        mutualnet_mm::detection/mutual-mask-rcnn_vgg16_fpn_8xb2-2x_coco.py \
        --cfg-options model.backbone.init_cfg.checkpoint=PATH

Without a path the network is trained from scratch.

Paper: detection and segmentation on COCO.
Cost: 1.0x-600 174 G, 0.25x-240 5.7 G MACs; a step 1.67 x the full network's.
"""

_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py']
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='MaskRCNN',
    mutual=dict(
        width_range=(0.25, 1.0),
        resolution=(600, 480, 360, 240),
        num_random=2,
        supervision='label',
    ),
    backbone=dict(
        _delete_=True,
        type='mutualnet_mm.SlimmableVGG',
        depth=16,
        norm_cfg=dict(type='BN'),
        out_indices=(1, 2, 3, 4),  # strides 4, 8, 16, 32
        init_cfg=dict(type='Pretrained', checkpoint=None),
    ),
    neck=dict(in_channels=[128, 256, 512, 512]),
)

sync_bn = 'torch'  # two images per GPU are few for batch norms

# The pipeline delivers the full resolution; smaller ones are made from it.
resize = dict(type='Resize', scale=(1000, 600), keep_ratio=True)
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

# Validation runs the full and the smallest subnet; the test runs more.
val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop',
    subnets=[
        '1.0x-600',
        '0.75x-600',
        '0.75x-480',
        '0.5x-480',
        '0.5x-360',
        '0.25x-360',
        '0.25x-240',
    ],
)
custom_hooks = [dict(type='mutualnet_mm.BNCalibrationHook', num_batches=32)]
