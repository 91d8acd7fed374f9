"""Transfer from ImageNet: 100 epochs, batch 256."""

_base_ = ['imagenet_bs1024_250e.py']

optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = dict(end=100)
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=256)
