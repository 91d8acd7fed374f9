"""Like the Slow config, but SlowFast: 4 of 16 frames in the Slow branch.

    python projects/fight_clips.py DATA --out DIR

The clips span the same time.

Not in the paper: surveillance clips, here.
Cost: 1.0x-64-4 69.8 M, 0.63x-40-2 34.4 M MACs; a step 2.38 x the full
network's.
"""

_base_ = ['mutual-slow-r10_1xb10_fight-64px.py']

model = dict(
    mutual=dict(frames=(4, 3, 2)),
    backbone=dict(
        _delete_=True,
        type='mutualnet_mm.SlimmableResNet3dSlowFast',
        resample_rate=4,
        speed_ratio=4,
        slow_pathway=dict(
            type='resnet3d',
            depth=18,
            stage_blocks=(1, 1, 1, 1),
            base_channels=16,
            pretrained=None,
            lateral=True,
            conv1_kernel=(1, 7, 7),
            conv1_stride_t=1,
            pool1_stride_t=1,
            inflate=(0, 0, 1, 1),
        ),
        fast_pathway=dict(
            type='resnet3d',
            depth=18,
            stage_blocks=(1, 1, 1, 1),
            base_channels=2,
            pretrained=None,
            lateral=False,
            conv1_kernel=(5, 7, 7),
            conv1_stride_t=1,
            pool1_stride_t=1,
        ),
    ),
    cls_head=dict(type='SlowFastHead', in_channels=144),
)

train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
for pipeline in (train_pipeline, test_pipeline):
    pipeline[0].transforms[1].update(clip_len=16, frame_interval=2)
del pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

test_cfg = dict(
    subnets=[
        '1.0x-64-4',
        '0.9x-64-3',
        '0.8x-52-4',
        '0.75x-52-3',
        '0.7x-40-3',
        '0.63x-40-2',
    ]
)
