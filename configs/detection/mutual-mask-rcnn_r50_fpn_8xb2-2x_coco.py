"""The paper's detection experiment with ResNet-50 instead of VGG-16.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

The backbone is mmdet's own, from its torchvision weights, with batch norm
unfrozen: the full network's frozen statistics would fit no subnet.

Not in the paper: ResNet-50 in place of VGG-16.
Cost: 1.0x-600 67.2 G, 0.25x-240 4.6 G MACs; a step 1.93 x the full network's.
"""

_base_ = ['../mutual_mask_rcnn_vgg16.py']

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
