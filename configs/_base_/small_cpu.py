"""A small classifier on folders of images, for a CPU: one process, no GPU.

Configs that inherit it set the model's parts, the data and the pipelines.
"""

_base_ = ['mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type='CustomDataset'),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type='CustomDataset'),
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
val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(type='mutualnet_mm.SubnetTestLoop')
custom_hooks = [dict(type='mutualnet_mm.BNCalibrationHook', num_batches=16)]
