# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What tools and other projects call."""

from .adaptive_file import AdaptiveFile
from .adaptive_model import AdaptiveModel
from .arguments import config_parser, runner_parser
from .build import build_table
from .checkpoints import check_checkpoint, check_exists
from .config import load_config, one_line_errors
from .controller import LatencyController, ladder
from .export import export_subnet
from .latency import check_writable, measure_latencies, save_latencies
from .machine import machine_name
from .macs import HeadCost, count_heads, count_macs, count_params
from .model import build_model, listed_subnets
from .static_file import load_static, save_static, save_stock
from .step_times import StepTimes, measure_steps
from .training_cost import (
    closed_form_ratio,
    expected_macs,
    ways_of_sampling,
)
from .views import Views, find_views

__all__ = [
    'AdaptiveFile',
    'AdaptiveModel',
    'HeadCost',
    'LatencyController',
    'StepTimes',
    'Views',
    'build_model',
    'build_table',
    'check_checkpoint',
    'check_exists',
    'check_writable',
    'closed_form_ratio',
    'config_parser',
    'count_heads',
    'count_macs',
    'count_params',
    'expected_macs',
    'export_subnet',
    'find_views',
    'ladder',
    'listed_subnets',
    'load_config',
    'load_static',
    'machine_name',
    'measure_latencies',
    'measure_steps',
    'one_line_errors',
    'runner_parser',
    'save_latencies',
    'save_static',
    'save_stock',
    'ways_of_sampling',
]
