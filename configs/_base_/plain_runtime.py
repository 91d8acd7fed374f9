"""Stock training and evaluation of one network; any mmpretrain model."""

_base_ = ['mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

# One checkpoint of WRN-28-10 takes 0.3 GB, and there would be 200.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
val_cfg = dict()
test_cfg = dict()
