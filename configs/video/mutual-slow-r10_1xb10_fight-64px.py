"""A small experiment for a CPU: Slow of 10 layers on clips of 64 pixels.

    python projects/fight_clips.py DATA --out DIR

projects/fight_clips.py prepares the clips and derives every network
that it compares from this config.

Not in the paper: surveillance clips, here.
Cost: 1.0x-64-8 79.0 M, 0.63x-40-3 9.9 M MACs; a step 1.86 x the full
network's.
"""

_base_ = ['mmaction::_base_/default_runtime.py']
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

size, epochs = 64, 60
model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='Recognizer3D',
    mutual=dict(
        width_range=(0.63, 1.0),
        resolution=(size, 52, 40),
        frames=(8, 5, 3),
        num_random=2,
        include_min=False,
    ),
    backbone=dict(
        type='mutualnet_mm.SlimmableResNet3dSlowOnly',
        depth=18,
        stage_blocks=(1, 1, 1, 1),
        base_channels=16,
    ),
    cls_head=dict(
        type='I3DHead',
        in_channels=128,
        num_classes=2,
        topk=(1,),
        dropout_ratio=0.0,
        average_clips='prob',
    ),
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape='NCTHW',
    ),
)

clip = dict(type='SampleFrames', clip_len=8, frame_interval=4)
init, decode = dict(type='DecordInit'), dict(type='DecordDecode')
resize = dict(type='Resize', scale=(size, size), keep_ratio=False)
pack = [
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
train_pipeline = [
    dict(type='mutualnet_mm.ReadClip', transforms=[init, clip, decode]),
    dict(type='RandomResizedCrop', area_range=(0.5, 1.0)),
    resize,
    dict(type='Flip', flip_ratio=0.5),
    *pack,
]
views = dict(clip, num_clips=3, test_mode=True)
test_pipeline = [
    dict(type='mutualnet_mm.ReadClip', transforms=[init, views, decode]),
    resize,
    *pack,
]
data = dict(
    type='VideoDataset',
    data_root='data/fight_64px',
    data_prefix=dict(video=''),
)
train_dataloader = dict(
    batch_size=10,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='train.txt', pipeline=train_pipeline, **data),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file='val.txt', pipeline=test_pipeline, test_mode=True, **data
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='AccMetric', metric_options=dict(top_k_accuracy=dict(topk=(1,)))
)
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=40, norm_type=2),
)
param_scheduler = dict(
    type='CosineAnnealingLR',
    T_max=epochs,
    end=epochs,
    by_epoch=True,
    convert_to_iter_based=True,
)
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=epochs)
val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop',
    subnets=[
        '1.0x-64-8',
        '0.9x-64-5',
        '0.8x-52-8',
        '0.75x-52-5',
        '0.7x-40-5',
        '0.63x-40-3',
    ],
)
custom_hooks = [dict(type='mutualnet_mm.BNCalibrationHook', num_batches=7)]
