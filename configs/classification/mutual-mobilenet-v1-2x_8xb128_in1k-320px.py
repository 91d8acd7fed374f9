"""Scaling MobileNetV1 up: widths [1.0, 2.0] x {320, 288, 256, 224}.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

1.6x-288 is the point that the paper compares with compound scaling, see
inet-mobilenet-v1-d14-w12_8xb128_in1k-288px.py.

Paper: scaling up.
Cost: 2.0x-320 4.5 G, 1.0x-224 569 M MACs; a step 2.05 x the full network's.
"""

_base_ = ['mutual-mobilenet-v1_8xb128_in1k.py']

model = dict(
    mutual=dict(width_range=(1.0, 2.0), resolution=(320, 288, 256, 224)),
    backbone=dict(widen_factor=2.0, max_width=2.0),
    head=dict(in_channels=2048),
)

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 320
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 366  # 320 x 256 / 224
test_pipeline[2].crop_size = 320
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
test_cfg = dict(subnets=['2.0x-320', '1.6x-288', '1.0x-224'])
