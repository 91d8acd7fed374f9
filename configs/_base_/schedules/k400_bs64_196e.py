"""Slow and SlowFast on Kinetics-400: 196 epochs, total batch 64.

What neither the paper nor SlowFast's recipe names is taken from mmaction2:
gradients are clipped, and weight decay acts on everything.
"""

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=40, norm_type=2),
)
# Updated every iteration; the cosine also runs during the warm-up.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.1,
        by_epoch=True,
        end=34,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        end=196,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=196, val_begin=1, val_interval=5
)
auto_scale_lr = dict(enable=False, base_batch_size=64)
