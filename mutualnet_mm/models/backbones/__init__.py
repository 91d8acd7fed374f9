# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Slimmable backbones, one file per family."""

from . import classifiers as classifiers  # registers their rules
from . import tanet as tanet
from . import van as van
from .mobilenet import SlimmableMobileNetV2, SlimmableMobileNetV3
from .mobilenet_v1 import MobileNetV1, SlimmableMobileNetV1
from .resnet import SlimmableResNet, SlimmableResNet_CIFAR
from .slimmable import Slimmable, SlimmableMixin
from .slowfast import SlimmableResNet3dSlowFast
from .transformers import TransformerMixin
from .vgg import SlimmableVGG
from .video import (
    SlimmableResNet3d,
    SlimmableResNet3dSlowOnly,
    SlimmableX3D,
)
from .wide_resnet import SlimmableWideResNet, WideResNet

__all__ = [
    'MobileNetV1',
    'Slimmable',
    'SlimmableMixin',
    'SlimmableMobileNetV1',
    'SlimmableMobileNetV2',
    'SlimmableMobileNetV3',
    'SlimmableResNet',
    'SlimmableResNet3d',
    'SlimmableResNet3dSlowFast',
    'SlimmableResNet3dSlowOnly',
    'SlimmableResNet_CIFAR',
    'SlimmableVGG',
    'SlimmableWideResNet',
    'SlimmableX3D',
    'TransformerMixin',
    'WideResNet',
]
