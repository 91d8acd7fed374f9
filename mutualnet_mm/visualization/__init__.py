# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Plots."""

from .curves import draw_tables, plot_tables, reduced_dimension

__all__ = ['draw_tables', 'plot_tables', 'reduced_dimension']
