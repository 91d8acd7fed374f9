# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Slimmable backbones, one file per family."""

from .resnet import SlimmableResNet
from .slimmable import Slimmable, SlimmableMixin
from .vgg import SlimmableVGG

__all__ = ['Slimmable', 'SlimmableMixin', 'SlimmableResNet', 'SlimmableVGG']
