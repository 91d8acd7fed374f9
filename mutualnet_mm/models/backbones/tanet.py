# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""TANet: a ResNet whose blocks weigh and filter each channel over time."""

from torch import nn

from ...slimmable import LayerRule
from ...slimmable.slim_layer import active_outputs
from ..wraps import Stock, swap
from .resnet import resnet_rules
from .slimmable import Rules, family

_WHOLE = LayerRule(fixed=True)


class NarrowChannels(Stock):
    """Makes the temporal adaptive module that it is mixed into take less.

    The stock module checks for the channels that it was built with.
    """

    prefix = 'Slim'

    @property
    def in_channels(self) -> int:
        """int: Channels of its input and output, at the active width."""
        return active_outputs(self.L[3])


@family('TANet')
def tanet_rules(backbone: nn.Module) -> Rules:
    """A ResNet; what is linear over time stays as it is.

    The weights of the channels narrow as the channels do.
    """
    rules = resnet_rules(backbone)
    for name, block in backbone.named_modules():
        if hasattr(block, 'tam'):
            swap(block.tam, NarrowChannels)
            rules[f'{name}.tam.G.0'] = rules[f'{name}.tam.G.3'] = _WHOLE
            rules[f'{name}.tam.L.3'] = rules[f'{name}.block.conv1.conv']
    return rules
