# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The query table of a network's subnets."""

from .entry import COSTS, Latency, TableEntry, is_milliseconds
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
    'FrontStep',
    'Latency',
    'QueryTable',
    'TableEntry',
    'describe_front',
    'front_steps',
    'is_milliseconds',
    'load_table',
    'metric_interval',
    'save_csv',
    'save_table',
    'table_from_dict',
    'table_to_dict',
    'wilson_interval',
]
