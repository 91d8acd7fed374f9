# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Exact batch-norm statistics, for many subnets in one pass over the data.

The running statistics of a slimmable network belong to its full pass alone
(Sec. 3.2): another subnet is evaluated with its own, pooled over a few
forwarded batches. :class:`BatchNormCollector` watches one subnet; a bank,
``{str(subnet): statistics}``, keeps what was found for many.
"""

from contextlib import contextmanager
from typing import Container, Dict, Iterator, Optional, Tuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError, UsageError
from .batch_norms import SlimBatchNorm
from .moments import Moments
from .ranks import gather

Statistics = Dict[str, Tuple[Tensor, Tensor]]
"""Mean and (biased) variance of the active channels, by layer name."""


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

    def check(self, batch: str) -> None:
        """Refuse what the last forward brought if it cannot be normalised.

        One NaN would make the statistics of every layer after it NaN; those
        after a layer that had one value alone would be of other maps than in
        evaluation.

        Args:
            batch (str): What the error calls the batch.

        Raises:
            UsageError: Names the first layer and the batch.
        """
        seen = {n: m for n, m in self._moments.items() if m.count}
        if not seen:
            return
        for name, moments in seen.items():
            if self._layers[name].lacks_variance(moments.count):
                raise UsageError(
                    f'the batch norms cannot be calibrated: layer {name!r} '
                    f'gets a single value per channel from {batch}; use '
                    'larger batches, such as BNCalibrationHook(dataloader='
                    'dict(batch_size=16, ...))'
                )
        # One number per layer: a device is waited for once.
        sums = torch.stack([(m.mean + m.m2).sum() for m in seen.values()])
        for name, is_finite in zip(seen, sums.isfinite().tolist()):
            if not is_finite:
                raise UsageError(
                    f'the batch norms cannot be calibrated: layer {name!r} '
                    f'gets values that are not finite from {batch}; look at '
                    'these inputs and at the weights'
                )

    def finish(self) -> Statistics:
        """Reduce over ranks and return the statistics of all layers seen."""
        own = {
            name: (m.count, m.mean.cpu(), m.m2.cpu())
            for name, m in self._moments.items()
            if m.count
        }
        pooled: Dict[str, Moments] = {}
        for part in gather(own):
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


@contextmanager
def use_statistics(
    module: nn.Module, statistics: Optional[Statistics]
) -> Iterator[None]:
    """Evaluate with ``statistics`` instead of the running ones.

    For the length of a ``with`` block, without copying: layers point at the
    given tensors. None, and layers not named, mean the running statistics,
    also in a block inside of another one.

    Raises:
        ConfigError: If a named layer does not exist.
    """
    statistics = statistics or {}
    layers = [*slim_batch_norms(module)]
    _check_names(module, statistics, dict(layers))
    before = [(layer, layer.subnet_stats) for _, layer in layers]
    try:
        for name, layer in layers:
            layer.subnet_stats = statistics.get(name)
        yield
    finally:
        for layer, old in before:
            layer.subnet_stats = old


def check_statistics(module: nn.Module, statistics: Statistics) -> None:
    """Refuse statistics of layers that ``module`` does not have.

    Raises:
        ConfigError: Names the first one.
    """
    _check_names(module, statistics, dict(slim_batch_norms(module)))


def _check_names(
    module: nn.Module, statistics: Statistics, layers: Container[str]
) -> None:
    unknown = [name for name in statistics if name not in layers]
    if unknown:
        raise ConfigError(
            f'statistics of {min(unknown)} name no slimmable '
            f'batch norm of {type(module).__name__}'
        )


def slim_batch_norms(
    module: nn.Module,
) -> Iterator[Tuple[str, SlimBatchNorm]]:
    """Names and layers of the slim batch norms in ``module``."""
    for name, layer in module.named_modules():
        if isinstance(layer, SlimBatchNorm):
            yield name, layer
