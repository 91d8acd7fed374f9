# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Plots."""

from .curves import plot_tables, reduced_dimension

__all__ = ['plot_tables', 'reduced_dimension']
