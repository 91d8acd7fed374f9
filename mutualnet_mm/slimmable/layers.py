# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Convolution, batch norm and linear layers that run at any width.

Each is a subclass without own parameters or ``__init__``: an existing stock
layer becomes one by a class swap (:mod:`.convert`), which adds

- ``slim_state`` (:class:`~.state.SlimState`): the active subnet, shared;
- ``slim_rule`` (:class:`~.channels.LayerRule`): how its output is rounded.

The *input* width is read off the incoming tensor, so that no dependency
between layers has to be traced. At full width each runs the stock layer's own
``forward``, with its checks.
"""

import warnings
from typing import Any, Callable, Optional, Tuple

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError, UsageError
from .channels import PLAIN, LayerRule, active_channels, slice_inputs
from .moments import pooled_over_ranks, values_per_channel
from .ranks import world_size
from .state import SlimState


class SlimLayer(nn.Module):
    """Mixin of all slim layers: the attributes that the swap sets."""

    slim_state: SlimState
    slim_rule: LayerRule = PLAIN

    @property
    def is_widest(self) -> bool:
        """Whether the stock ``forward``, with its own checks, is due."""
        return self.slim_state.width >= self.slim_state.max_width

    def active_out(self, channels: int) -> int:
        """Output channels at the active width, of ``channels`` built."""
        state = self.slim_state
        return active_channels(
            channels,
            state.width,
            state.max_width,
            self.slim_rule,
            state.rounding,
        )


def _head(vector: Optional[Tensor], length: int) -> Optional[Tensor]:
    return None if vector is None else vector[:length]


class _SlimConv(SlimLayer):
    """``forward`` for convolutions of any dimension.

    Dense: rounded output, leading (or split) input columns. Grouped: the
    group width stays, the leading groups that the input fills are run;
    depthwise is the case of one channel a group.
    """

    groups: int

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.shape[1]
        if self.groups > 1:
            return self._forward_groups(x, inputs)
        outputs = self.active_out(self.out_channels)
        if self.is_widest or (inputs, outputs) == (
            self.in_channels,
            self.out_channels,
        ):
            return super().forward(x)
        weight = slice_inputs(
            self.weight[:outputs], inputs, self.slim_rule.input_tail
        )
        return self._conv_forward(x, weight, _head(self.bias, outputs))

    def _forward_groups(self, x: Tensor, inputs: int) -> Tensor:
        if self.is_widest or inputs == self.in_channels:
            return super().forward(x)
        group_width = self.in_channels // self.groups
        groups, rest = divmod(inputs, group_width)
        if rest:
            raise ConfigError(
                f'an input of {inputs} channels does not fill whole groups of '
                f'{group_width}: the layer before must round to a multiple'
            )
        outputs = groups * (self.out_channels // self.groups)
        return type(self)._conv_forward(
            _LeadingGroups(self, groups),
            x,
            self.weight[:outputs],
            _head(self.bias, outputs),
        )


class SlimConv2d(_SlimConv, nn.Conv2d):
    """``nn.Conv2d`` at the active width."""


class SlimConv3d(_SlimConv, nn.Conv3d):
    """``nn.Conv3d`` at the active width; time and space stay whole."""


class SlimLinear(SlimLayer, nn.Linear):
    """``nn.Linear`` at the active width."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., active in)`` to ``(..., active out)``."""
        if self.is_widest:
            return super().forward(x)
        outputs = self.active_out(self.out_features)
        weight = slice_inputs(
            self.weight[:outputs], x.shape[-1], self.slim_rule.input_tail
        )
        return F.linear(x, weight, _head(self.bias, outputs))


class SlimBatchNorm(SlimLayer):
    """``forward`` for batch norm: follows its input's channels.

    Training normalises with the batch's own statistics and updates the
    running ones only where ``slim_state.track_stats`` says so (the full
    network's pass). ``subnet_stats``, a pair (mean, variance) set by
    :func:`~.statistics.use_statistics`, replaces the running ones in
    evaluation; ``collector``, set by
    :class:`~.statistics.BatchNormCollector`, is shown the inputs.

    A batch with a single value per channel has no variance to normalise
    with: there the layer uses its running statistics, and warns once; while
    statistics are collected, those of the batches so far.
    """

    subnet_stats: Optional[Tuple[Tensor, Tensor]] = None
    collector: Any = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, active channels, ...)``.

        Raises:
            UsageError: If a narrow network is evaluated without statistics.
        """
        width = x.shape[1]
        if self.collector is not None:
            self.collector.update(x)
            return self._collected_statistics(x)
        if self.training:
            if self.lacks_variance(values_per_channel(x)):
                return self._running_statistics(x)
            if not self.slim_state.track_stats:
                return self._batch_statistics(x)
        elif self.subnet_stats is not None:
            return self._given_statistics(x, *self.subnet_stats)
        elif width < self.num_features and not self.slim_state.running_stats:
            raise UsageError(
                f'a batch norm of {self.num_features} channels runs at {width}'
                ' in evaluation mode and has only the running statistics, '
                "which are the full network's: find the subnet's by "
                'mutualnet_mm.apis.calibrate and give them to '
                'model.activate(subnet, statistics); in training, do not '
                'freeze batch norms'
            )
        if width == self.num_features:
            return super().forward(x)
        return _stock_forward(self)(_LeadingChannels(self, width), x)

    def _given_statistics(
        self, x: Tensor, mean: Tensor, var: Tensor
    ) -> Tensor:
        if len(mean) != x.shape[1]:
            raise UsageError(
                f'a batch norm runs at {x.shape[1]} channels with statistics '
                f'of {len(mean)}: they are of a subnet of another width'
            )
        weight, bias = self._leading_affine(x)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)

    def _batch_statistics(self, x: Tensor) -> Tensor:
        weight, bias = self._leading_affine(x)
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)

    def _collected_statistics(self, x: Tensor) -> Tensor:
        if not self.lacks_variance(values_per_channel(x)):
            return self._batch_statistics(x)
        mean, var = self.collector.statistics()
        return self._given_statistics(x, mean.to(x.dtype), var.to(x.dtype))

    def _running_statistics(self, x: Tensor) -> Tensor:
        what = (
            f'a batch norm of {self.num_features} channels got a single value '
            'per channel (one image of 1 x 1 maps), which has no variance: '
        )
        if self.num_batches_tracked == 0:  # the initial ones fit nothing
            raise UsageError(f'{what}train on larger batches or inputs')
        warnings.warn(
            f'{what}it uses its running statistics there; larger batches or '
            'inputs avoid it',
            stacklevel=2,
        )
        width = x.shape[1]
        return self._given_statistics(
            x, self.running_mean[:width], self.running_var[:width]
        )

    def lacks_variance(self, count: int) -> bool:
        """Whether ``count`` values per channel are too few to normalise."""
        return count == 1 and self.running_mean is not None

    def _leading_affine(
        self, x: Tensor
    ) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        width = x.shape[1]
        return _head(self.weight, width), _head(self.bias, width)


class SlimBatchNorm1d(SlimBatchNorm, nn.BatchNorm1d, _BatchNorm):
    """``nn.BatchNorm1d`` over the channels that come in."""


class SlimBatchNorm2d(SlimBatchNorm, nn.BatchNorm2d, _BatchNorm):
    """``nn.BatchNorm2d`` over the channels that come in."""

    # ``_BatchNorm`` is named again as a direct base since mmengine's
    # ``init_cfg(layer='_BatchNorm')`` looks at direct bases only.


class SlimBatchNorm3d(SlimBatchNorm, nn.BatchNorm3d, _BatchNorm):
    """``nn.BatchNorm3d`` over the channels that come in."""


class SlimBatchNormXd(SlimBatchNorm, _BatchNorm):
    """Batch norm of inputs of any dimension.

    In place of a ``SyncBatchNorm`` that was reverted to an ordinary batch
    norm, as MMEngine does where there is a single process.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        del x


class SlimSyncBatchNorm(SlimBatchNorm, nn.SyncBatchNorm, _BatchNorm):
    """``nn.SyncBatchNorm`` over the channels that come in.

    Calibration is synchronised like training, although it runs in evaluation
    mode: small batches per rank are what this layer exists for.
    """

    def _batch_statistics(self, x: Tensor) -> Tensor:
        # Still synchronised: the stock forward, shown no running statistics.
        return nn.SyncBatchNorm.forward(
            _LeadingChannels(self, x.shape[1], tracked=False), x
        )

    def _collected_statistics(self, x: Tensor) -> Tensor:
        if world_size() == 1:
            return super()._collected_statistics(x)
        # No gradient is needed, so any backend serves, also on a CPU.
        moments = pooled_over_ranks(x, self.process_group)
        mean, var = (m.to(x.dtype) for m in moments.statistics())
        return self._given_statistics(x, mean, var)

    def lacks_variance(self, count: int) -> bool:
        """Never among several ranks, which see more values together."""
        return world_size() == 1 and super().lacks_variance(count)


class _LeadingGroups:
    """A convolution seen through its leading groups.

    Stands in for ``self`` in the stock ``_conv_forward``, which reads them
    there. The layer is not changed: another thread may be running it.
    """

    def __init__(self, layer: nn.Module, groups: int) -> None:
        self._layer = layer
        self.groups = groups

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


class _LeadingChannels:
    """A batch norm seen through its leading ``width`` channels.

    Stands in for ``self`` in the stock ``forward``, so that momentum,
    counters and synchronisation stay the stock ones. Slices are views: what
    the stock forward writes to the running statistics lands in the layer.
    """

    def __init__(
        self, layer: nn.Module, width: int, tracked: bool = True
    ) -> None:
        self._layer = layer
        self.weight = _head(layer.weight, width)
        self.bias = _head(layer.bias, width)
        self.running_mean = self.running_var = None
        if tracked:
            self.running_mean = _head(layer.running_mean, width)
            self.running_var = _head(layer.running_var, width)
        else:
            self.track_running_stats = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def _stock_forward(layer: nn.Module) -> Callable[..., Tensor]:
    if isinstance(layer, nn.SyncBatchNorm):
        return nn.SyncBatchNorm.forward
    return _BatchNorm.forward
