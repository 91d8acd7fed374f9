# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Registries: children of mmengine's, so that every project finds us.

``type='mutualnet_mm.MutualLearning'`` works in the configs of mmpretrain,
mmdet and mmaction2 once ``custom_imports`` names ``mutualnet_mm``.
"""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mutualnet_mm',
    locations=['mutualnet_mm.models'],
)
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope='mutualnet_mm',
    locations=['mutualnet_mm.datasets'],
)
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mutualnet_mm',
    locations=['mutualnet_mm.engine'],
)
LOOPS = Registry(
    'loop',
    parent=MMENGINE_LOOPS,
    scope='mutualnet_mm',
    locations=['mutualnet_mm.engine'],
)
