"""Handwritten digits on a CPU: the two-minute example.

tools/quickstart.sh --task cls makes the images and runs it.
"""

_base_ = ['mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

epochs = 20
model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    mutual=dict(width=(0.25, 1.0), resolution=(16, 12, 8)),
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
    backbone=dict(
        type='mutualnet_mm.SlimmableResNet_CIFAR',
        depth=18,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        stem_channels=16,
        base_channels=16,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomCrop', crop_size=16, padding=2
    ),  # a mirrored digit is none
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=16),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='CustomDataset',
        data_root='data/digits',
        data_prefix='train',
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='CustomDataset',
        data_root='data/digits',
        data_prefix='val',
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    ),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(
    type='CosineAnnealingLR',
    T_max=epochs,
    by_epoch=True,
    convert_to_iter_based=True,
)
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=epochs)
val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop',
    subnets=['1.0x-16', '0.75x-16', '0.5x-12', '0.25x-12', '0.25x-8'],
)
custom_hooks = [dict(type='mutualnet_mm.BNCalibrationHook', num_batches=16)]
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1)
)
randomness = dict(seed=0)
