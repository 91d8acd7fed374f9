"""ResNet-50 on ImageNet: 120 epochs, total batch 512."""

_base_ = ['imagenet_bs1024_250e.py']

optim_wrapper = dict(optimizer=dict(lr=0.2))
param_scheduler = dict(end=120)
train_cfg = dict(max_epochs=120)
auto_scale_lr = dict(base_batch_size=512)
