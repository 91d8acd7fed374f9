# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""VGG, with or without its fully connected classifier."""

from typing import Any

from torch import nn

from ...registry import MODELS
from ...slimmable import LayerRule
from .slimmable import Rules, Slimmable, family


@family('VGG')
def vgg_rules(backbone: nn.Module) -> Rules:
    """Plain rules; class scores keep all classes.

    The stock classifier flattens a 7 x 7 map, which only a 224 x 224 input
    has: with it a network trains at that resolution alone. Pre-training pools
    globally instead.
    """
    if backbone.num_classes > 0:
        return {'classifier.6': LayerRule(fixed=True)}
    return {}


@MODELS.register_module()
def SlimmableVGG(**kwargs: Any) -> nn.Module:
    """mmpretrain's ``VGG``, slimmable.

    With the default ``out_indices`` and without ``num_classes`` the last map,
    of stride 32; for a feature pyramid use ``out_indices=(1, 2, 3, 4)``:
    strides 4 to 32.
    """
    return Slimmable(wraps='mmpretrain.VGG', **kwargs)
