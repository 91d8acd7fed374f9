"""MobileNetV1 and V2 on ImageNet: 250 epochs, total batch 1024."""

optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.5, momentum=0.9, nesterov=True, weight_decay=1e-4
    ),
    # Weight decay acts on dense convolutions and the classifier's weight only.
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, dwconv_decay_mult=0.0
    ),
)
# No warm-up; decays to zero, updated every iteration.
param_scheduler = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    end=250,
    convert_to_iter_based=True,
)
train_cfg = dict(by_epoch=True, max_epochs=250, val_interval=1)
auto_scale_lr = dict(base_batch_size=1024)
