# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""ResNet and what is built on its blocks, in 2D and 3D."""

import math
from typing import Any

from torch import nn

from ...registry import MODELS
from ...slimmable import LayerRule
from ...slimmable.slim_layer import active_outputs
from ..wraps import Stock, swap
from .slimmable import Rules, Slimmable, family

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


@family('ResNet')
@family('ResNet3d')
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
            inner = {
                f'{name}.{path}': layer
                for path, layer in block.named_modules()
                # Of 3D blocks the convolutions are wrapped: `conv1.conv`.
                if path.split('.')[0] in ('conv1', 'conv2')
                and _convolves(layer)
                and not path.endswith('conv_offset')
            }
            *_, middle = inner.values()
            rules.update(dict.fromkeys(inner, _inner_rule(middle, expansion)))
    for name, layer in backbone.named_modules():
        stem = name.split('.')[0] in ('conv1', 'stem')
        if stem and isinstance(layer, _CONVOLUTIONS):
            rules[name] = LayerRule(ratio=1 / expansion)
    return rules


def _convolves(layer: nn.Module) -> bool:
    # The module of TIN that shifts says the same of its groups.
    deformable = hasattr(layer, 'deform_groups') and hasattr(layer, 'weight')
    return isinstance(layer, _CONVOLUTIONS) or deformable


@family('ResNeSt')
def resnest_rules(backbone: nn.Module) -> Rules:
    """A ResNet whose radix groups all stay, and narrow each.

    Attention weighs them against each other.
    """
    rules = resnet_rules(backbone)
    for name, layer in backbone.named_modules():
        if name.endswith('conv2.conv') and layer.groups > 1:
            rules[name] = LayerRule(narrow_groups=True)
    return rules


class NarrowScales(Stock):
    """Makes the Res2Net block that it is mixed into split what it has.

    The stock block splits by the number of channels that it was built with.
    """

    prefix = 'Slim'

    @property
    def width(self) -> int:
        """int: Channels of each scale, at the active width."""
        return active_outputs(self.convs[0])


@family('Res2Net')
def res2net_rules(backbone: nn.Module) -> Rules:
    """A ResNet whose blocks split their channels into scales."""
    for block in backbone.modules():
        if hasattr(block, 'scales') and hasattr(block, 'convs'):
            swap(block, NarrowScales)
    return resnet_rules(backbone)


def _inner_rule(middle: nn.Module, expansion: int) -> LayerRule:
    if middle.groups == 1:
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
