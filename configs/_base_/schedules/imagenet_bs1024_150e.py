"""MobileNetV3 on ImageNet: 150 epochs, total batch 1024."""

_base_ = ['imagenet_bs1024_250e.py']

optim_wrapper = dict(optimizer=dict(lr=0.4))
param_scheduler = dict(end=150)
train_cfg = dict(max_epochs=150)
