# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Images and clips as a user has them, made into batches."""

from .pipeline import InputPipeline

__all__ = ['InputPipeline']
