# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Which stock configs can be made adaptive: all of a project, tried."""

from .page import coverage_page, reasons
from .processes import DIVISORS, Outcome, survey
from .records import Record, add_record, read_records
from .selection import choose, combination, size, stock_configs

__all__ = [
    'DIVISORS',
    'Outcome',
    'Record',
    'add_record',
    'choose',
    'combination',
    'coverage_page',
    'read_records',
    'reasons',
    'size',
    'stock_configs',
    'survey',
]
