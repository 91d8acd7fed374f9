# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The version of mutualnet_mm, read by ``setup.py`` without importing it."""

__version__ = '0.1.0'
