"""Subnets in validation (the full and the smallest) and testing."""

_base_ = ['plain_runtime_video.py']

val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(type='mutualnet_mm.SubnetTestLoop')
custom_hooks = [dict(type='mutualnet_mm.BNCalibrationHook', num_batches=32)]
