# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""One subnet in a file of its own, verified against the adaptive network."""

from .checkpoint_file import load_static, save_static, save_stock
from .export import FORMATS, TOLERANCE, export_subnet
from .verify import Verification

__all__ = [
    'FORMATS',
    'TOLERANCE',
    'Verification',
    'export_subnet',
    'load_static',
    'save_static',
    'save_stock',
]
