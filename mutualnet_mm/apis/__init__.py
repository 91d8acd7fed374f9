# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The face of the package: what other projects call.

Everything else lies in the package of its subject: ``cost``, ``deploy``,
``export``, ``query_table``, ``engine``, ``config``.
"""

from ..config import load_config
from ..cost import count_heads, count_macs, count_params
from ..deploy import (
    AdaptiveFile,
    AdaptiveModel,
    LatencyController,
    measure_latencies,
)
from ..engine import calibrate
from ..export import export_subnet, load_static
from ..models.build import build_model
from ..query_table import load_table
from ..visualization import plot_tables
from .build_table import build_table
from .convert_checkpoint import convert_checkpoint
from .make_adaptive import make_adaptive
from .search_widths import search_widths

__all__ = [
    'AdaptiveFile',
    'AdaptiveModel',
    'LatencyController',
    'build_model',
    'build_table',
    'calibrate',
    'convert_checkpoint',
    'count_heads',
    'count_macs',
    'count_params',
    'export_subnet',
    'load_config',
    'load_static',
    'load_table',
    'make_adaptive',
    'measure_latencies',
    'plot_tables',
    'search_widths',
]
