# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Data: transforms, and small data sets that need no download."""

from .read_clip import ReadClip
from .transforms import MultiResolution

__all__ = ['MultiResolution', 'ReadClip']
