# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Calibration and evaluation inside the stock runner."""

from .calibration import Bank, calibrate
from .hooks import BNCalibrationHook
from .loops import SubnetTestLoop, SubnetValLoop

__all__ = [
    'BNCalibrationHook',
    'Bank',
    'SubnetTestLoop',
    'SubnetValLoop',
    'calibrate',
]
