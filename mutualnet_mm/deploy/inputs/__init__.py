# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Images and clips as a user has them, made into batches."""

from .pipeline import InputPipeline
from .reader import Reader, register_reader

__all__ = ['InputPipeline', 'Reader', 'register_reader']
