"""Kinetics-400, clips of 8 frames, every eighth one; 8 clips on each GPU.

Training and validation use crops of 224 pixels; validation takes one clip,
cropped in the centre. Tests use 30 views, 10 clips of 3 crops of 256 pixels.
"""

clip = dict(type='SampleFrames', clip_len=8, frame_interval=8)
one_clip = dict(clip, test_mode=True)
ten_clips = dict(clip, num_clips=10, test_mode=True)
init, decode = dict(type='DecordInit'), dict(type='DecordDecode')
pack = [
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
train_pipeline = [
    dict(type='mutualnet_mm.ReadClip', transforms=[init, clip, decode]),
    dict(type='Resize', scale=(-1, 256)),
    dict(type='RandomResizedCrop'),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    *pack,
]
val_pipeline = [
    dict(type='mutualnet_mm.ReadClip', transforms=[init, one_clip, decode]),
    dict(type='Resize', scale=(-1, 256)),
    dict(type='CenterCrop', crop_size=224),
    *pack,
]
test_pipeline = [
    dict(type='mutualnet_mm.ReadClip', transforms=[init, ten_clips, decode]),
    dict(type='Resize', scale=(-1, 256)),
    dict(type='ThreeCrop', crop_size=256),
    *pack,
]

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='VideoDataset',
        ann_file='data/kinetics400/kinetics400_train_list_videos.txt',
        data_prefix=dict(video='data/kinetics400/videos_train'),
        pipeline=train_pipeline,
    ),
)
val_data = dict(
    type='VideoDataset',
    ann_file='data/kinetics400/kinetics400_val_list_videos.txt',
    data_prefix=dict(video='data/kinetics400/videos_val'),
    test_mode=True,
)
val_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=val_pipeline, **val_data),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline, **val_data),
)
val_evaluator = dict(type='AccMetric')
test_evaluator = val_evaluator
