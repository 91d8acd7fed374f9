"""Subnets in validation (the full and the smallest) and testing."""

_base_ = ['plain_runtime.py']

val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(type='mutualnet_mm.SubnetTestLoop')
