"""Stock training and evaluation of one network of mmaction2."""

_base_ = ['mmaction::_base_/default_runtime.py']
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
