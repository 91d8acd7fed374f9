# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""One file and one object that run a trained network at any budget."""

from .adaptive_file import AdaptiveFile
from .adaptive_model import AdaptiveModel
from .controller import LatencyController, pareto_levels
from .latency import check_writable, measure_latencies, save_latencies
from .latency_parts import LatencyPart
from .switchable import SwitchableNetwork

__all__ = [
    'AdaptiveFile',
    'AdaptiveModel',
    'LatencyController',
    'LatencyPart',
    'SwitchableNetwork',
    'check_writable',
    'pareto_levels',
    'measure_latencies',
    'save_latencies',
]
