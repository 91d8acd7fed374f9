# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Visual attention networks (VAN)."""

from torch import nn

from ...slimmable.slim_layer import active_outputs
from ..wraps import Stock, swap
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
        return active_outputs(self.mlp.fc2)


@family('VAN')
def van_rules(backbone: nn.Module) -> Rules:
    """Plain rules; blocks say their active channels."""
    for block in backbone.modules():
        if type(block).__name__ == 'VANBlock':
            swap(block, NarrowVANBlock)
    return {}
