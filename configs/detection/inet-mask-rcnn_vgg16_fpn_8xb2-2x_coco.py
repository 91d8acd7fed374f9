"""Individually trained baseline (I-Net): one width, one resolution.

WIDTH=0.5 RESOLUTION=360 mutualnet train THIS_CONFIG

Paper: detection and segmentation on COCO.
Cost: 1.0x-600 174 G MACs.
"""

_base_ = ['../mutual_mask_rcnn_vgg16.py']

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
