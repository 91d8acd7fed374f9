# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""ResNet and what is built on its blocks."""

from typing import Any

from torch import nn

from ...registry import MODELS
from ...slimmable import LayerRule
from .slimmable import Rules, Slimmable, family


@family('ResNet')
def resnet_rules(backbone: nn.Module) -> Rules:
    """Round the bottlenecks' inner layers, and the stem, as a quarter.

    The published code multiplies the *output* channels of a bottleneck by
    the width and divides by the expansion; basic blocks (ResNet-18, -34) are
    plain.
    """
    rules: Rules = {}
    expansion = 1
    for name, block in backbone.named_modules():
        if hasattr(block, 'conv3') and hasattr(block, 'expansion'):
            expansion = block.expansion
            for inner in ('conv1', 'conv2'):
                if isinstance(getattr(block, inner, None), nn.Conv2d):
                    rules[f'{name}.{inner}'] = LayerRule(ratio=1 / expansion)
    for name, layer in backbone.named_modules():
        stem = name == 'conv1' or name.startswith('stem.')
        if stem and isinstance(layer, nn.Conv2d):
            rules[name] = LayerRule(ratio=1 / expansion)
    return rules


@MODELS.register_module()
def SlimmableResNet(**kwargs: Any) -> nn.Module:
    """mmpretrain's ``ResNet``, slimmable.

    mmdet's own, the same network with ``frozen_stages`` and ``norm_eval`` on
    by default, is ``Slimmable(wraps='mmdet.ResNet')``.
    """
    return Slimmable(wraps='mmpretrain.ResNet', **kwargs)
