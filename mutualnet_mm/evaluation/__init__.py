# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The query table of a network's subnets."""

from .intervals import metric_interval, wilson_interval
from .table import QueryTable, TableEntry
from .table_file import (
    load_table,
    save_csv,
    save_table,
    table_from_dict,
    table_to_dict,
)

__all__ = [
    'QueryTable',
    'TableEntry',
    'load_table',
    'metric_interval',
    'save_csv',
    'save_table',
    'table_from_dict',
    'table_to_dict',
    'wilson_interval',
]
