# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What tools and other projects call."""

from .adaptive_file import AdaptiveFile
from .arguments import config_parser, runner_parser
from .build import build_table
from .checkpoints import check_checkpoint, check_exists
from .config import load_config, one_line_errors
from .macs import HeadCost, count_heads, count_macs, count_params
from .model import build_model, listed_subnets
from .step_times import StepTimes, measure_steps
from .training_cost import (
    closed_form_ratio,
    expected_macs,
    ways_of_sampling,
)
from .views import Views, find_views

__all__ = [
    'AdaptiveFile',
    'HeadCost',
    'StepTimes',
    'Views',
    'build_model',
    'build_table',
    'check_checkpoint',
    'check_exists',
    'closed_form_ratio',
    'config_parser',
    'count_heads',
    'count_macs',
    'count_params',
    'expected_macs',
    'find_views',
    'listed_subnets',
    'load_config',
    'measure_steps',
    'one_line_errors',
    'runner_parser',
    'ways_of_sampling',
]
