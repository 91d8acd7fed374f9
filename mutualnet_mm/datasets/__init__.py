# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Data: transforms, and a small data set that needs no download."""

from .transforms import MultiResolution

__all__ = ['MultiResolution']
