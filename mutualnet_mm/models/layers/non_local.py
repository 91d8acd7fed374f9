# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Non-local blocks that compare positions by their channels as they come."""

from typing import Optional

from torch import Tensor, nn

from ...slimmable.channels import Ranges, take
from ...slimmable.slim_layer import active_outputs
from ..wraps import Stock, swap


class NarrowGaussian(Stock):
    """Makes the block of mode ``gaussian`` that it is mixed into narrow.

    Positions are compared by the active channels. The stock block has layers
    for that in its other modes, and counts what it was built with.
    """

    prefix = 'Slim'
    _seen: Optional[Ranges] = None

    @property
    def in_channels(self) -> int:
        """int: Channels of its input and output, at the active width."""
        return active_outputs(self.conv_out.conv)

    def gaussian(self, theta_x: Tensor, phi_x: Tensor) -> Tensor:
        """Compare positions, (N, P, C) and (N, C, Q)."""
        if self._seen is not None:
            theta_x = take(theta_x, self._seen, 2)
            phi_x = take(phi_x, self._seen, 1)
        return super().gaussian(theta_x, phi_x)

    def blind(self) -> None:
        """See the active channels alone, at any width: for the proof."""
        last = self.conv_out.conv
        self._seen = last.rows(last.out_channels)


def narrow_gaussians(module: nn.Module) -> None:
    """Swap the blocks of mode ``gaussian`` in a stock network, in place."""
    for block in module.modules():
        names = (base.__name__ for base in type(block).__mro__)
        if '_NonLocalNd' in names and block.mode == 'gaussian':
            swap(block, NarrowGaussian)
