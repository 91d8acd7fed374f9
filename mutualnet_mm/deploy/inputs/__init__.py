# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Turn the images and clips of a user into batches."""

from .clips import ClipReader
from .images import DetectionReader, ImageReader
from .pipeline import InputPipeline
from .reader import Reader, register_reader

__all__ = [
    'ClipReader',
    'DetectionReader',
    'ImageReader',
    'InputPipeline',
    'Reader',
    'register_reader',
]
