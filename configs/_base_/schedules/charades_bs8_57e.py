"""Charades: 57 epochs, total batch 8.

Batch and learning rate are half of those of SlowFast's recipe for Charades
(configs/Charades/SLOWFAST_16x8_R50.yaml of PySlowFast); the rest is the same.
"""

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.01875, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=40, norm_type=2),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1 / 375,
        by_epoch=True,
        end=4,
        convert_to_iter_based=True,
    ),
    dict(type='MultiStepLR', by_epoch=True, milestones=[41, 49], gamma=0.1),
]
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=57, val_begin=1, val_interval=5
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
