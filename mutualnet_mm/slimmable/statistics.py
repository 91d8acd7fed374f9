# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Exact batch-norm statistics, for many subnets in one pass over the data.

The running statistics of a slimmable network belong to its full pass alone
(Sec. 3.2): another subnet is evaluated with its own, pooled over a few
forwarded batches. :class:`BatchNormCollector` watches one subnet; a bank,
``{str(subnet): statistics}``, keeps what was found for many.
"""

from contextlib import contextmanager
from typing import Dict, Iterator, List, Optional, Tuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import ConfigError
from .layers import _SlimBatchNorm

Statistics = Dict[str, Tuple[Tensor, Tensor]]
"""Mean and (biased) variance of the active channels, by layer name."""


class Moments:
    """Pooled count, mean and squared m2 of a stream of batches.

    Merged pairwise (Chan et al.) in double precision, so that the spread
    *between* batches counts too and large offsets do not cancel.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0)
        self.m2 = torch.zeros(0)

    def update(self, x: Tensor) -> None:
        """Add a batch of shape ``(N, C, ...)``."""
        x = x.detach()
        x = x if x.dtype == torch.double else x.float()
        dims = [0, *range(2, x.dim())]
        var, mean = torch.var_mean(x, dims, unbiased=False)
        count = x.numel() // x.shape[1]
        self.merge(count, mean.double(), var.double() * count)

    def merge(self, count: int, mean: Tensor, m2: Tensor) -> None:
        """Add ``count`` values of a mean and summed squared m2."""
        if self.count == 0:
            self.count, self.mean, self.m2 = count, mean, m2
            return
        if mean.shape != self.mean.shape:
            raise ConfigError(
                f'a layer saw {len(self.mean)} and then {len(mean)} channels:'
                ' the width must not change while statistics are collected'
            )
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.m2 = self.m2 + m2 + delta**2 * (self.count * count / total)
        self.count = total

    def statistics(self) -> Tuple[Tensor, Tensor]:
        """Mean and biased variance, each of shape ``(C, )``, in double."""
        return self.mean, self.m2 / self.count


class BatchNormCollector:
    """Pools the inputs of all batch norms of ``module`` for one subnet.

    Args:
        module (nn.Module): With slim layers. It is not changed.
    """

    def __init__(self, module: nn.Module) -> None:
        self._layers = dict(slim_batch_norms(module))
        self._moments = {name: Moments() for name in self._layers}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Collect from the forwards inside of a ``with`` block.

        Batch norms then normalise with the batch's own statistics, as in
        training, and move no running ones, whatever mode the module is in.
        """
        for name, layer in self._layers.items():
            layer.collector = self._moments[name]
        try:
            yield
        finally:
            for layer in self._layers.values():
                layer.collector = None

    def finish(self) -> Statistics:
        """Reduce over ranks and return the statistics of all layers seen."""
        own = {
            name: (m.count, m.mean.cpu(), m.m2.cpu())
            for name, m in self._moments.items()
            if m.count
        }
        pooled: Dict[str, Moments] = {}
        for part in _gather(own):
            for name, moments in part.items():
                pooled.setdefault(name, Moments()).merge(*moments)
        result = {}
        for name, total in pooled.items():
            mean, variance = total.statistics()
            like = self._layers[name].running_mean
            result[name] = (
                (mean.float(), variance.float())
                if like is None
                else (mean.to(like), variance.to(like))
            )
        return result


def _gather(own: dict) -> List[dict]:
    """One collective for all layers, so that no rank waits for another."""
    if not (dist.is_available() and dist.is_initialized()):
        return [own]
    parts: List[dict] = [{}] * dist.get_world_size()
    dist.all_gather_object(parts, own)
    return parts


@contextmanager
def use_statistics(
    module: nn.Module, statistics: Optional[Statistics]
) -> Iterator[None]:
    """Evaluate with ``statistics`` instead of the running ones.

    For the length of a ``with`` block, without copying: layers point at the
    given tensors. None, and layers not named, mean the running statistics.

    Raises:
        ConfigError: If a named layer does not exist.
    """
    statistics = statistics or {}
    check_statistics(module, statistics)
    layers = dict(slim_batch_norms(module))
    before = {name: layers[name].subnet_stats for name in statistics}
    try:
        for name, pair in statistics.items():
            layers[name].subnet_stats = pair
        yield
    finally:
        for name, old in before.items():
            layers[name].subnet_stats = old


def check_statistics(module: nn.Module, statistics: Statistics) -> None:
    """Refuse statistics of layers that ``module`` does not have.

    Raises:
        ConfigError: Names the first one.
    """
    unknown = set(statistics).difference(dict(slim_batch_norms(module)))
    if unknown:
        raise ConfigError(
            f'statistics of {min(unknown)} name no slimmable '
            f'batch norm of {type(module).__name__}'
        )


def slim_batch_norms(
    module: nn.Module,
) -> Iterator[Tuple[str, _SlimBatchNorm]]:
    """Names and layers of the slim batch norms in ``module``."""
    for name, layer in module.named_modules():
        if isinstance(layer, _SlimBatchNorm):
            yield name, layer
