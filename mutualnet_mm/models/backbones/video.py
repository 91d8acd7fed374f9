# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""mmaction2's 3D networks of one branch.

They take clips at the subnet's resolution and frames as they come; only the
width is theirs. ResNets have the rules of 2D ones
(:func:`~.resnet.resnet_rules`), X3D needs none.
"""

from typing import Any

from torch import nn

from ...registry import MODELS
from .slimmable import Slimmable


@MODELS.register_module()
def SlimmableResNet3d(**kwargs: Any) -> nn.Module:
    """mmaction2's ``ResNet3d`` (I3D), slimmable."""
    return Slimmable(wraps='mmaction.ResNet3d', **kwargs)


@MODELS.register_module()
def SlimmableResNet3dSlowOnly(**kwargs: Any) -> nn.Module:
    """mmaction2's ``ResNet3dSlowOnly`` (the paper's Slow), slimmable."""
    return Slimmable(wraps='mmaction.ResNet3dSlowOnly', **kwargs)


@MODELS.register_module()
def SlimmableX3D(**kwargs: Any) -> nn.Module:
    """mmaction2's ``X3D``, slimmable.

    Every layer follows the width, channel-wise convolutions and the squeezed
    layers of the SE blocks too.
    """
    return Slimmable(wraps='mmaction.X3D', **kwargs)
