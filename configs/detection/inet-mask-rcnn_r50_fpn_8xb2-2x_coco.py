"""Individually trained baseline (I-Net) with ResNet-50.

WIDTH=0.5 RESOLUTION=360 mutualnet train THIS_CONFIG

Not in the paper: ResNet-50 in place of VGG-16.
Cost: 1.0x-600 67.2 G MACs.
"""

_base_ = ['mutual-mask-rcnn_r50_fpn_8xb2-2x_coco.py']

width = {{'$WIDTH:1.0'}}
resolution = {{'$RESOLUTION:600'}}

model = dict(
    mutual=dict(
        width_range=None,
        widths=(width,),
        resolution=(resolution,),
        num_random=0,
    )
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (1000, resolution)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (1000, resolution)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
test_cfg = dict(subnets=None)  # the only one there is
