# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Calibration and evaluation inside the stock runner."""

from .calibration import SubnetStatistics, calibrate, move_statistics
from .hooks import BNCalibrationHook
from .loops import SubnetTestLoop, SubnetValLoop

__all__ = [
    'BNCalibrationHook',
    'SubnetStatistics',
    'SubnetTestLoop',
    'SubnetValLoop',
    'calibrate',
    'move_statistics',
]
