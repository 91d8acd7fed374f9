# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""ResNet and what is built on its blocks."""

import math
from typing import Any, Optional

from torch import nn

from ...registry import MODELS
from ...slimmable import LayerRule
from .slimmable import Rules, Slimmable, family


@family('ResNet')
def resnet_rules(backbone: nn.Module) -> Rules:
    """Round the bottlenecks' inner layers, and the stem, as a quarter.

    The published code multiplies the *output* channels of a bottleneck by
    the width and divides by the expansion; basic blocks (ResNet-18, -34) are
    plain. Where the middle convolution is grouped (ResNeXt, RegNet), groups
    keep their width and whole ones are dropped.
    """
    rules: Rules = {}
    expansion = 1
    for name, block in backbone.named_modules():
        if hasattr(block, 'conv3') and hasattr(block, 'expansion'):
            expansion = block.expansion
            rule = _inner_rule(getattr(block, 'conv2', None), expansion)
            for inner in ('conv1', 'conv2'):
                if isinstance(getattr(block, inner, None), nn.Conv2d):
                    rules[f'{name}.{inner}'] = rule
    for name, layer in backbone.named_modules():
        stem = name == 'conv1' or name.startswith('stem.')
        if stem and isinstance(layer, nn.Conv2d):
            rules[name] = LayerRule(ratio=1 / expansion)
    return rules


def _inner_rule(middle: Optional[nn.Module], expansion: int) -> LayerRule:
    if not isinstance(middle, nn.Conv2d) or middle.groups == 1:
        return LayerRule(ratio=1 / expansion)
    group_width = middle.in_channels // middle.groups
    return LayerRule(divisor=8 * group_width // math.gcd(8, group_width))


@MODELS.register_module()
def SlimmableResNet(**kwargs: Any) -> nn.Module:
    """mmpretrain's ``ResNet``, slimmable.

    mmdet's own, the same network with ``frozen_stages`` and ``norm_eval`` on
    by default, is ``Slimmable(wraps='mmdet.ResNet')``.
    """
    return Slimmable(wraps='mmpretrain.ResNet', **kwargs)


@MODELS.register_module()
def SlimmableResNet_CIFAR(**kwargs: Any) -> nn.Module:
    """mmpretrain's ``ResNet_CIFAR``, slimmable.

    With a 3 x 3 stem of stride 1, for images of 32 x 32 pixels.
    """
    return Slimmable(wraps='mmpretrain.ResNet_CIFAR', **kwargs)
