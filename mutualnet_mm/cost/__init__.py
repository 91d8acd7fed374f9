# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a subnet costs to run and to train."""

from .machine import machine_name
from .macs import (
    HeadCost,
    count_heads,
    count_macs,
    count_params,
    warn_of_equal_sizes,
)
from .macs_by_width import MacsByWidth
from .step_times import StepTimes, measure_steps
from .subnet_costs import SubnetCosts
from .training_cost import (
    closed_form_ratio,
    expected_macs,
    teacher_macs,
    ways_of_sampling,
)

__all__ = [
    'HeadCost',
    'MacsByWidth',
    'StepTimes',
    'SubnetCosts',
    'closed_form_ratio',
    'count_heads',
    'count_macs',
    'count_params',
    'expected_macs',
    'machine_name',
    'measure_steps',
    'teacher_macs',
    'warn_of_equal_sizes',
    'ways_of_sampling',
]
