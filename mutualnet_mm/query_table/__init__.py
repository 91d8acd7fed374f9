# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The query table of a network's subnets."""

from .cascade_front import (
    best_cascade,
    cascade_front,
    describe_cascades,
    why_no_cascades,
)
from .cascades import Cascade
from .entry import COSTS, Latency, TableEntry, is_positive
from .front_steps import FrontStep, describe_front, front_steps
from .intervals import metric_interval, wilson_interval
from .table import QueryTable
from .table_file import (
    load_table,
    save_csv,
    save_table,
    table_from_dict,
    table_to_dict,
)

__all__ = [
    'COSTS',
    'Cascade',
    'FrontStep',
    'Latency',
    'QueryTable',
    'TableEntry',
    'best_cascade',
    'cascade_front',
    'describe_cascades',
    'describe_front',
    'front_steps',
    'is_positive',
    'load_table',
    'metric_interval',
    'save_csv',
    'save_table',
    'table_from_dict',
    'table_to_dict',
    'why_no_cascades',
    'wilson_interval',
]
