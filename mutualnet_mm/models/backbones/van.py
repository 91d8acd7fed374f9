# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Visual attention networks (VAN)."""

from typing import Any

from torch import nn

from ...slimmable import SlimLayer
from ..wraps import Stock, mix
from .slimmable import Rules, family


class NarrowVANBlock(Stock):
    """Makes the block that it is mixed into say the channels that it has.

    The stock backbone brings maps into shape by what the last block of a
    stage says, which is the number that it was built with.
    """

    prefix = 'Slim'

    @property
    def out_channels(self) -> int:
        """int: Channels of the output, at the active width."""
        layer = self.mlp.fc2
        channels = layer.out_channels
        if isinstance(layer, SlimLayer):
            return layer.active_out(channels)
        return channels  # the static form


@family('VAN')
def van_rules(backbone: nn.Module) -> Rules:
    """Plain rules; blocks say their active channels."""
    for block in backbone.modules():
        stock: Any = type(block)
        if stock.__name__ == 'VANBlock':
            block.__class__ = mix(NarrowVANBlock, stock)
    return {}
