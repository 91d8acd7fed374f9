# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Analyses of trained networks: why mutual learning works."""

from .trained import TrainedNetwork

__all__ = ['TrainedNetwork']
