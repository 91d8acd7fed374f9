"""I-Net: MobileNetV1 trained alone at one width and resolution (Fig. 8).

    export WIDTH=0.5 RESOLUTION=160  # also for mutualnet test
    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Fig. 8.
Cost: 1.0x-224 569 M MACs.
"""

_base_ = ['mutual-mobilenet-v1_8xb128_in1k.py']

width = {{'$WIDTH:1.0'}}
resolution = {{'$RESOLUTION:224'}}
work_dir = f'work_dirs/inet-mobilenet-v1_in1k_{width}x-{resolution}'

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
