"""X3D on Kinetics-400: 300 epochs, total batch 128.

The paper names neither learning rate nor warm-up; these are the ones of
X3D-M's published recipe (configs/Kinetics/X3D_M.yaml of PySlowFast), which
agrees with the paper in everything else.
"""

_base_ = ['k400_bs64_196e.py']

optim_wrapper = dict(optimizer=dict(weight_decay=5e-5))
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 35
param_scheduler[1].end = 300
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=128)
