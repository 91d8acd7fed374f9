# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Plots."""

from .curves import plot_curve

__all__ = ['plot_curve']
