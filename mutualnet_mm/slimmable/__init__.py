# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The engine: plain PyTorch, imports nothing of OpenMMLab."""

from .batch_norms import (
    SlimBatchNorm1d,
    SlimBatchNorm2d,
    SlimBatchNorm3d,
    SlimBatchNormXd,
    SlimSyncBatchNorm,
)
from .channels import (
    ROUNDING,
    LayerRule,
    active_channels,
    make_divisible,
)
from .convert import (
    BuiltLayers,
    convert,
    register_inner_rules,
    register_layer,
    trust_forward,
)
from .layers import (
    SlimConv2d,
    SlimConv3d,
    SlimLinear,
)
from .library_norms import SlimBatchNormAct
from .macs import count_module_macs
from .moments import Moments
from .norms import PerChannel
from .params import count_module_params
from .share import share_weights
from .slim import slim
from .slim_layer import SlimLayer
from .sort import SortedChannels, sort_channels
from .state import SlimState, active_width, set_width, slim_states
from .static import make_static
from .statistics import (
    BatchNormCollector,
    Statistics,
    slim_batch_norms,
    use_statistics,
)
from .verify import verify_slicing

__all__ = [
    'ROUNDING',
    'BatchNormCollector',
    'BuiltLayers',
    'LayerRule',
    'Moments',
    'PerChannel',
    'SlimBatchNorm1d',
    'SlimBatchNorm2d',
    'SlimBatchNorm3d',
    'SlimBatchNormAct',
    'SlimBatchNormXd',
    'SlimConv2d',
    'SlimConv3d',
    'SlimLayer',
    'SlimLinear',
    'SlimState',
    'SlimSyncBatchNorm',
    'SortedChannels',
    'Statistics',
    'active_channels',
    'active_width',
    'convert',
    'count_module_macs',
    'count_module_params',
    'make_divisible',
    'make_static',
    'register_inner_rules',
    'register_layer',
    'set_width',
    'share_weights',
    'slim_batch_norms',
    'slim',
    'slim_states',
    'sort_channels',
    'trust_forward',
    'use_statistics',
    'verify_slicing',
]
