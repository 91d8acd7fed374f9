# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Stock backbones that hold their classifier themselves."""

from torch import nn

from ...errors import ConfigError
from ...slimmable import LayerRule
from .slimmable import Rules, family


@family('InceptionV3')
def inception_v3_rules(backbone: nn.Module) -> Rules:
    """Class scores keep all classes; refuses the auxiliary classifier.

    That one runs in training alone, so that it cannot be proven to narrow.
    """
    if backbone.aux_logits:
        raise ConfigError(
            'InceptionV3.AuxLogits runs in training alone and is not proven '
            'to narrow: leave aux_logits=True out'
        )
    return {'fc': LayerRule(fixed=True)}


@family('LeNet5')
def lenet5_rules(backbone: nn.Module) -> Rules:
    """Class scores keep all classes."""
    if backbone.num_classes > 0:
        return {'classifier.2': LayerRule(fixed=True)}
    return {}
