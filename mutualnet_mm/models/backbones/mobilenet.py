# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""mmpretrain's MobileNetV2 and MobileNetV3."""

from typing import Any

from torch import nn

from ...registry import MODELS
from ...slimmable import LayerRule
from .slimmable import Rules, Slimmable, family


@family('MobileNetV2')
def mobilenet_v2_rules(backbone: nn.Module) -> Rules:
    """Hidden layers are 6 times the rounded input; the last layer is fixed.

    As in the published code, which keeps the last 1280 channels at every
    width.
    """
    rules: Rules = {'conv2.conv': LayerRule(fixed=True)}
    for name, block in backbone.named_modules():
        if type(block).__name__ != 'InvertedResidual':
            continue
        inner, first = next(
            (n, m)
            for n, m in block.named_modules()
            if isinstance(m, nn.Conv2d)
        )
        if first.groups == 1:  # else it expands nothing: ratio 1
            ratio = first.out_channels / first.in_channels
            rules[f'{name}.{inner}'] = LayerRule(ratio=ratio)
    return rules


@MODELS.register_module()
def SlimmableMobileNetV2(**kwargs: Any) -> nn.Module:
    """mmpretrain's ``MobileNetV2``, slimmable but for its last layer."""
    return Slimmable(wraps='mmpretrain.MobileNetV2', **kwargs)


@MODELS.register_module()
def SlimmableMobileNetV3(**kwargs: Any) -> nn.Module:
    """mmpretrain's ``MobileNetV3``, slimmable.

    Every layer follows the width, the squeezed ones of the SE blocks too.
    """
    return Slimmable(wraps='mmpretrain.MobileNetV3', **kwargs)
