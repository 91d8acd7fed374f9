"""The paper's experiment with every size made in the data pipeline.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Each size is resized from the original image by the stock transform instead
of interpolated on the device: exactly the paper's, 1000 x {600, 480, 360,
240}, but more work for the data loaders. Validation and testing interpolate.

Paper: detection and segmentation on COCO.
Cost: 1.0x-600 174 G, 0.25x-240 5.7 G MACs; a step 1.67 x the full network's.
"""

_base_ = ['../mutual_mask_rcnn_vgg16.py']

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='mutualnet_mm.MultiResolution',
        resolution=(600, 480, 360, 240),
        resize=dict(type='Resize', scale=(1000, 600), keep_ratio=True),
        transforms=[dict(type='PackDetInputs')],
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
