# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Registered models: slimmable backbones and the MutualLearning wrapper."""

from .backbones import Slimmable, SlimmableResNet, SlimmableVGG
from .mutual import MutualLearning, MutualLearningMixin

__all__ = [
    'MutualLearning',
    'MutualLearningMixin',
    'Slimmable',
    'SlimmableResNet',
    'SlimmableVGG',
]
