# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Plots, and tables in a terminal."""

from .curves import draw_tables, plot_tables, reduced_dimension
from .printed_table import print_table

__all__ = ['draw_tables', 'plot_tables', 'print_table', 'reduced_dimension']
