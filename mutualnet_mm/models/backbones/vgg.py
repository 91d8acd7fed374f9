# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""VGG without its fully connected classifier."""

from typing import Any

from torch import nn

from ...errors import ConfigError
from ...registry import MODELS
from .slimmable import Rules, Slimmable, family


@family('VGG')
def vgg_rules(backbone: nn.Module) -> Rules:
    """Plain rules; refuses the classifier.

    The stock classifier flattens a 7 x 7 map, which only a 224 x 224 input
    has. Pre-training pools globally instead.
    """
    if backbone.num_classes > 0:
        raise ConfigError(
            f'VGG with num_classes={backbone.num_classes} flattens a 7 x 7 '
            'map and runs at no other resolution: leave num_classes out and '
            'classify after a GlobalAveragePooling neck'
        )
    return {}


@MODELS.register_module()
def SlimmableVGG(**kwargs: Any) -> nn.Module:
    """mmpretrain's ``VGG`` (without classifier), slimmable.

    With the default ``out_indices`` the last map, of stride 32; for a feature
    pyramid use ``out_indices=(1, 2, 3, 4)``: strides 4 to 32.
    """
    return Slimmable(wraps='mmpretrain.VGG', **kwargs)
