# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Convolution and linear layers that run at any width.

Other kinds of layers are in :mod:`.batch_norms`, :mod:`.norms`,
:mod:`.transposed` and :mod:`.vectors`. Each is a subclass without own
parameters or ``__init__``: an existing stock layer becomes one by a class swap
(:mod:`.convert`), which adds

- ``slim_state`` (:class:`~.state.SlimState`): the active subnet, shared;
- ``slim_rule`` (:class:`~.channels.LayerRule`): how its output is rounded.

The *input* width is read off the incoming tensor: where its channels are the
leading ones, nothing else has to be known. Behind joints of channels
(:mod:`.joints`) ``slim_inputs`` says which ones they are. At full width each
layer runs the stock layer's own ``forward``, with its checks.
"""

from typing import Any, Callable, ClassVar, Dict, List, Optional

import torch.nn.functional as F
from torch import Tensor, nn

from .channels import Ranges
from .slim_layer import SlimLayer, check_groups, zero_except


class _SlimConv(SlimLayer):
    """``forward`` for convolutions of any dimension.

    Dense: rounded output, and the columns that meet the input. Grouped: the
    group width stays, the groups that the input fills are run; depthwise is
    the case of one channel a group. Where the rule says ``narrow_groups``,
    every group narrows like a dense convolution instead.
    """

    folds = True
    any_forward = True
    convolve: ClassVar[Callable[..., Tensor]]
    groups: int
    in_channels: int

    @property
    def drops_groups(self) -> bool:
        """bool: Whether whole groups are kept or dropped."""
        return self.groups > 1 and not self.slim_rule.narrow_groups

    @property
    def built(self) -> int:
        """int: Its output channels."""
        return self.out_channels

    @property
    def follows(self) -> bool:
        """bool: Groups that are dropped whole are those of the input."""
        return self.drops_groups

    @property
    def input_multiple(self) -> int:
        """int: The width of groups that stay whole."""
        return self.in_channels // self.groups if self.drops_groups else 1

    @property
    def parts(self) -> int:
        """int: Groups that narrow each."""
        return 1 if self.drops_groups else self.groups

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(N, active in, ...)`` to ``(N, active out, ...)``."""
        if self.is_widest:
            return super().forward(x)
        active = self.kept(x.shape[1])
        weight: Any = active['weight']
        if weight is self.weight:
            return super().forward(x)
        groups = self.groups
        if groups > 1 and not self.slim_rule.narrow_groups:
            groups = x.shape[1] // (self.in_channels // groups)
        if self.padding_mode != 'zeros':
            padded = self._reversed_padding_repeated_twice
            x, padding = F.pad(x, padded, self.padding_mode), 0
        else:
            padding = self.padding
        return self.convolve(
            *(x, weight, active['bias'], self.stride, padding),
            *(self.dilation, groups),
        )

    def narrowed(self, inputs: int) -> Dict[str, Optional[Tensor]]:
        """Weight and bias, see :meth:`SlimLayer.narrowed`."""
        rows = self.output_ranges(inputs, self.out_channels)
        ranges = [rows]
        if self.groups == 1:
            ranges.append(self.columns(inputs))
        elif not self.drops_groups:
            ranges.append(((0, inputs // self.groups),))
        return dict(
            weight=self.part(self.weight, *ranges),
            bias=self.part(self.bias, rows),
        )

    def _rows_of_groups(self, columns: Ranges) -> Ranges:
        width = self.input_multiple
        check_groups(columns, width)
        each = self.out_channels // self.groups
        return tuple(
            (start // width * each, stop // width * each)
            for start, stop in columns
        )

    def output_ranges(self, inputs: int, outputs: int) -> Ranges:
        """See :meth:`SlimLayer.output_ranges`."""
        if self.drops_groups:
            return self._rows_of_groups(self.columns(inputs))
        return self.rows(outputs)

    def kept_with(self, channels: List[int]) -> List[int]:
        """See :meth:`SlimLayer.kept_with`: a group's first channel."""
        width, each = self.input_multiple, self.out_channels // self.groups
        if each == width:
            return channels
        return [first for first in channels[::width] for _ in range(each)]

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        if self.drops_groups:
            self.groups = self.groups * inputs // self.in_channels
        self.in_channels, self.out_channels = inputs, outputs

    def blind(self, inputs: int) -> None:
        """Zero the columns of all other inputs."""
        if self.groups == 1:
            zero_except(self.weight, self.columns(inputs))
        elif not self.drops_groups:
            self.weight.data[:, inputs // self.groups :] = 0


class SlimConv1d(_SlimConv, nn.Conv1d):
    """``nn.Conv1d`` at the active width; its length stays whole."""

    convolve = staticmethod(F.conv1d)


class SlimConv2d(_SlimConv, nn.Conv2d):
    """``nn.Conv2d`` at the active width."""

    convolve = staticmethod(F.conv2d)


class SlimConv3d(_SlimConv, nn.Conv3d):
    """``nn.Conv3d`` at the active width; time and space stay whole."""

    convolve = staticmethod(F.conv3d)


class SlimLinear(SlimLayer, nn.Linear):
    """``nn.Linear`` at the active width."""

    any_forward = True
    channel_dim = -1

    @property
    def built(self) -> int:
        """int: Its output features."""
        return self.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., active in)`` to ``(..., active out)``."""
        if self.is_widest:
            return super().forward(x)
        active = self.kept(x.shape[-1])
        return F.linear(x, active['weight'], active['bias'])

    def narrowed(self, inputs: int) -> Dict[str, Optional[Tensor]]:
        """Weight and bias, see :meth:`SlimLayer.narrowed`."""
        rows = self.rows(self.out_features)
        return dict(
            weight=self.part(self.weight, rows, self.columns(inputs)),
            bias=self.part(self.bias, rows),
        )

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        self.in_features, self.out_features = inputs, outputs

    def blind(self, inputs: int) -> None:
        """Zero the columns of all other inputs."""
        zero_except(self.weight, self.columns(inputs))
