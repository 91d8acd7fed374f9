# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Batch norms that run at any width, with statistics of each subnet."""

import warnings
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UsageError
from .channels import Ranges, channel_index
from .moments import pooled_over_ranks, values_per_channel
from .private_affines import PrivateAffine, fill_private
from .ranks import world_size
from .slim_layer import SlimLayer


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

    Attributes:
        slim_affines (dict, optional): Names of the children that hold weight
            and bias for an input size, by its scale; None if all sizes share
            one weight and one bias.
        folds (bool): Whether it does nothing but normalise, so that it can be
            folded into the convolution before it.
    """

    subnet_stats: Optional[Tuple[Tensor, Tensor]] = None
    collector: Any = None
    slim_affines: Optional[Mapping[float, str]] = None
    folds = True

    @property
    def follows(self) -> bool:
        """bool: Always, see :attr:`SlimLayer.follows`."""
        return True

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, active channels, ...)``.

        Raises:
            UsageError: If a narrow network is evaluated without statistics.
        """
        width = x.shape[1]
        if self.collector is not None:
            if self._finds_moments(x):
                return self._normalised_and_collected(x)
            self.collector.update(x)
            return self._collected_statistics(x)
        if self.training:
            if self.lacks_variance(values_per_channel(x)):
                return self._running_statistics(x)
            if not self.slim_state.track_stats:
                return self._batch_statistics(x)
        elif self.subnet_stats is not None:
            return self._given_statistics(x, *self.subnet_stats)
        elif self._lacks_statistics():
            raise UsageError(
                f'a batch norm of {self.num_features} channels, of which '
                f'{width} are active, runs at width '
                f'{self.slim_state.width:g} in evaluation mode and has only '
                "the running statistics, which are the full network's: find "
                "the subnet's by "
                'mutualnet_mm.apis.calibrate and give them to '
                'model.activate(subnet, statistics) (of a plain network: '
                'BatchNormCollector and use_statistics); in training, do not '
                'freeze batch norms'
            )
        if width == self.num_features and self.active_affine is self:
            return _stock_forward(self)(self, x)
        seen = _ActiveChannels(self, self.columns(width))
        out = _stock_forward(self)(seen, x)
        seen.write_back()
        return out

    def narrowed(self, inputs: int) -> Dict[str, Optional[Tensor]]:
        """Weight and bias, see :meth:`SlimLayer.narrowed`."""
        columns, active = self.columns(inputs), self.active_affine
        return dict(
            weight=self.part(active.weight, columns),
            bias=self.part(active.bias, columns),
        )

    @property
    def active_affine(self) -> Any:
        """nn.Module: Holds weight and bias of the active input size.

        The layer itself holds those of the full size.

        Raises:
            UsageError: If each size has its own, and the active one has none.
        """
        scale = self.slim_state.scale
        if self.slim_affines is None or scale == 1:
            return self
        if scale not in self.slim_affines:
            raise UsageError(
                f'batch norms have no weight and bias for an input size of '
                f'{scale:g} of the full one, but for {len(self.slim_affines)} '
                f'others ({", ".join(self.slim_affines.values())})'
            )
        return self._modules[self.slim_affines[scale]]

    def add_affines(self, names: Mapping[float, str]) -> None:
        """Hold a weight and a bias for each of some input sizes.

        They start with the layer's, which are those of the full size.

        Args:
            names (Mapping[float, str]): What they are called, by the size over
                the full one.
        """
        for name in names.values():
            self.add_module(name, PrivateAffine(self))
        self.slim_affines = dict(names)

    def settle_affine(self) -> None:
        """Keep weight and bias of the active input size alone."""
        active = self.active_affine
        self.weight, self.bias = active.weight, active.bias
        for name in (self.slim_affines or {}).values():
            del self._modules[name]
        self.slim_affines = None

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        fill_private(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def active_statistics(
        self, inputs: int
    ) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        """The running mean and variance of an input's channels."""
        columns = self.columns(inputs)
        return (
            self.part(self.running_mean, columns),
            self.part(self.running_var, columns),
        )

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        del outputs
        self.num_features = inputs

    def _given_statistics(
        self, x: Tensor, mean: Tensor, var: Tensor
    ) -> Tensor:
        if len(mean) != x.shape[1]:
            raise UsageError(
                f'a batch norm runs at {x.shape[1]} channels with statistics '
                f'of {len(mean)}: they are of a subnet of another width'
            )
        weight, bias = self._narrow_affine(x.shape[1])
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)

    def _batch_statistics(self, x: Tensor) -> Tensor:
        weight, bias = self._narrow_affine(x.shape[1])
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)

    def _finds_moments(self, x: Tensor) -> bool:
        """Whether one run of the kernel normalises and tells exact moments.

        On GPUs there is a choice of kernels, which round in other ways; and
        those of half precision are not exact.
        """
        return (
            x.device.type == 'cpu'
            and x.dtype in (torch.float, torch.double)
            and values_per_channel(x) > 1
        )

    def _normalised_and_collected(self, x: Tensor) -> Tensor:
        weight, bias = self._narrow_affine(x.shape[1])
        mean, var = (x.new_zeros(x.shape[1]) for _ in range(2))
        # What it leaves in running statistics that forget all else.
        out = F.batch_norm(x, mean, var, weight, bias, True, 1.0, self.eps)
        self.collector.add(values_per_channel(x), mean, var)
        return out

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
        return self._given_statistics(x, *self.active_statistics(x.shape[1]))

    def _lacks_statistics(self) -> bool:
        """Whether the running statistics are not those of the active width.

        Not even if all channels are active: layers before may be narrow.
        """
        state = self.slim_state
        return not (
            self.is_widest or state.running_stats or self.running_mean is None
        )

    def lacks_variance(self, count: int) -> bool:
        """Whether ``count`` values per channel are too few to normalise."""
        return count == 1 and self.running_mean is not None

    def _narrow_affine(
        self, inputs: int
    ) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        parts = self.kept(inputs, self.active_affine)
        return parts['weight'], parts['bias']


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
            _ActiveChannels(self, self.columns(x.shape[1]), tracked=False), x
        )

    def _finds_moments(self, x: Tensor) -> bool:
        """Never: it normalises in a kernel of its own."""
        return False

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


class _ActiveChannels:
    """A batch norm seen through the channels of ``columns``.

    Stands in for ``self`` in the stock ``forward``, so that momentum,
    counters and synchronisation stay the stock ones. What that writes to the
    running statistics lands in the layer: leading channels are views, others
    are copied back.
    """

    def __init__(
        self, layer: SlimBatchNorm, columns: Ranges, tracked: bool = True
    ) -> None:
        self._layer, self._columns = layer, columns
        affine = layer.active_affine
        self.weight = layer.part(affine.weight, columns)
        self.bias = layer.part(affine.bias, columns)
        self.running_mean = self.running_var = None
        if tracked:
            self.running_mean = layer.part(layer.running_mean, columns)
            self.running_var = layer.part(layer.running_var, columns)
        else:
            self.track_running_stats = False

    def write_back(self) -> None:
        """Hand running statistics that are copies to the layer."""
        if len(self._columns) == 1 or self.running_mean is None:
            return
        index = channel_index(self._columns, self.running_mean.device)
        self._layer.running_mean.index_copy_(0, index, self.running_mean)
        self._layer.running_var.index_copy_(0, index, self.running_var)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def _stock_forward(layer: nn.Module) -> Callable[..., Tensor]:
    if isinstance(layer, nn.SyncBatchNorm):
        return nn.SyncBatchNorm.forward
    return _BatchNorm.forward
