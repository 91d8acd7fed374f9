"""Scaling MobileNetV1 up as EfficientNet does: depth 1.4, width 1.2.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Its resolution is 1.3 x 224 = 291, here 288 like the point that it is compared
with, 1.6x-288 of mutual-mobilenet-v1-2x_8xb128_in1k-320px.py: 2.24 against
2.35 G multiply-accumulates.

Paper: scaling up, its rival.
Cost: 1.0x-288 2.2 G MACs.
"""

_base_ = ['mutual-mobilenet-v1_8xb128_in1k.py']

model = dict(
    mutual=dict(
        width_range=None, widths=(1.0,), resolution=(288,), num_random=0
    ),
    backbone=dict(depth_factor=1.4, widen_factor=1.2),
    head=dict(in_channels=1232),  # 1.2 x 1024 in multiples of 8
)

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 288
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 329  # 288 x 256 / 224
test_pipeline[2].crop_size = 288
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
test_cfg = dict(subnets=None)  # the only one there is
