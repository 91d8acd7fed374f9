# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Calibration and evaluation inside the stock runner."""

from .calibration import SubnetStatistics, calibrate, move_statistics
from .curve_hook import SubnetCurveHook
from .hooks import BNCalibrationHook
from .loops import SubnetTestLoop, SubnetValLoop
from .training_clock import TrainingClock, training_seconds

__all__ = [
    'BNCalibrationHook',
    'SubnetCurveHook',
    'SubnetStatistics',
    'SubnetTestLoop',
    'SubnetValLoop',
    'TrainingClock',
    'calibrate',
    'move_statistics',
    'training_seconds',
]
