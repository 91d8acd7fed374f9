# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Transposed convolutions: the input's channels come first in the weight."""

from typing import Any, Dict, Optional

from torch import Tensor, nn

from .channels import count
from .layers import _SlimConv
from .slim_layer import SlimLayer, zero_except


class _SlimConvTranspose(_SlimConv):
    """As convolutions, with rows and columns of the weight exchanged."""

    folds = False

    @property
    def magnitudes(self) -> Optional[Tensor]:
        """See :attr:`SlimLayer.magnitudes`."""
        weight = self.weight.abs().unflatten(0, (self.groups, -1)).sum(1)
        return weight.flatten(0, 1).flatten(1).sum(1)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run the stock ``forward`` at the active width."""
        return SlimLayer.forward(self, x, *args, **kwargs)

    def narrowed(self, inputs: int) -> Dict[str, Optional[Tensor]]:
        """Weight and bias, see :meth:`SlimLayer.narrowed`."""
        rows = self.output_ranges(inputs, self.out_channels)
        ranges = [self.columns(inputs)]
        if self.groups == 1:
            ranges.append(rows)
        elif not self.drops_groups:
            ranges.append(((0, count(rows) // self.groups),))
        return dict(
            weight=self.part(self.weight, *ranges),
            bias=self.part(self.bias, rows),
        )

    def blind(self, inputs: int) -> None:
        """Zero what meets all other inputs."""
        if not self.drops_groups:
            zero_except(self.weight, self.columns(inputs), 0)


class SlimConvTranspose1d(_SlimConvTranspose, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` at the active width."""


class SlimConvTranspose2d(_SlimConvTranspose, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` at the active width."""


class SlimConvTranspose3d(_SlimConvTranspose, nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` at the active width."""
