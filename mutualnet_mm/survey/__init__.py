# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Which stock configs can be made adaptive: all of a project, tried."""

from .page import coverage_page, reasons
from .processes import DIVISORS, Outcome, survey
from .records import add_outcome, read_outcomes
from .selection import choose, combination, size, stock_configs

__all__ = [
    'DIVISORS',
    'Outcome',
    'add_outcome',
    'choose',
    'combination',
    'coverage_page',
    'read_outcomes',
    'reasons',
    'size',
    'stock_configs',
    'survey',
]
