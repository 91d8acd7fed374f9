r"""Transfer from ImageNet to MIT Indoor-67: I-Net, one width and resolution.

CHECKPOINT comes from inet-mobilenet-v1_8xb128_in1k.py at the same width and
resolution.

    export WIDTH=0.5 RESOLUTION=160  # also for mutualnet test
    mutualnet train THIS_CONFIG \
        --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT

Paper: transfer learning.
Cost: 1.0x-224 568 M MACs.
"""

_base_ = ['mutual-mobilenet-v1_1xb256_indoor67.py']

width = {{'$WIDTH:1.0'}}
resolution = {{'$RESOLUTION:224'}}
work_dir = f'work_dirs/inet-mobilenet-v1_indoor67_{width}x-{resolution}'

model = dict(
    mutual=dict(
        width_range=None,
        widths=(width,),
        resolution=(resolution,),
        num_random=0,
    )
)

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = resolution
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = resolution * 256 // 224
test_pipeline[2].crop_size = resolution
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
test_cfg = dict(subnets=None)  # the only one there is
