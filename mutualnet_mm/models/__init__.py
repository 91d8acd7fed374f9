# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Registered models: slimmable backbones and the MutualLearning wrapper."""

from .backbones import (
    MobileNetV1,
    Slimmable,
    SlimmableMobileNetV1,
    SlimmableMobileNetV2,
    SlimmableMobileNetV3,
    SlimmableResNet,
    SlimmableResNet3d,
    SlimmableResNet3dSlowFast,
    SlimmableResNet3dSlowOnly,
    SlimmableResNet_CIFAR,
    SlimmableVGG,
    SlimmableWideResNet,
    SlimmableX3D,
    WideResNet,
)
from .mutual import MutualLearning, MutualLearningMixin
from .static import StaticMixin, StaticSubnet, static_model
from .tasks import Task, register_task

__all__ = [
    'MobileNetV1',
    'MutualLearning',
    'MutualLearningMixin',
    'StaticSubnet',
    'StaticMixin',
    'Slimmable',
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
    'Task',
    'WideResNet',
    'register_task',
    'static_model',
]
