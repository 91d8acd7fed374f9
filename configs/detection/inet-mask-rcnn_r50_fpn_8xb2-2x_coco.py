"""Individually trained baseline (I-Net) with ResNet-50.

WIDTH=0.5 RESOLUTION=360 python tools/train.py THIS_CONFIG
"""

_base_ = ['inet-mask-rcnn_vgg16_fpn_8xb2-2x_coco.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mutualnet_mm.Slimmable',
        wraps='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
