# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Batch-norm statistics of many subnets, from one pass over the data."""

from contextlib import nullcontext
from itertools import count
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import torch

from ..errors import ConfigError
from ..models import MutualLearningMixin
from ..slimmable import (
    BatchNormCollector,
    SlimSyncBatchNorm,
    Statistics,
    slim_batch_norms,
)
from ..slimmable.meta import evaluating
from ..slimmable.ranks import agree
from ..subnet import Subnet

SubnetStatistics = Dict[str, Statistics]
"""Statistics keyed by ``str(subnet)``."""


@torch.no_grad()
def calibrate(
    model: MutualLearningMixin,
    subnets: Sequence[Union[str, Subnet]],
    batches: Iterable[Any],
    tested: bool = False,
) -> SubnetStatistics:
    """Collect exact statistics of every subnet (Sec. 3.2).

    Each batch is loaded once and forwarded through every subnet; labels are
    not used and no running statistics change. Batches are pooled over ranks;
    an error on one rank is raised on all of them, unless it happens inside of
    the forward of a network with synchronised batch norms.

    Args:
        model (MutualLearningMixin): Unwrapped; its modes are kept.
        subnets (Sequence[str or Subnet]): Whose statistics to find, such as
            ``['0.5x-160']``.
        batches (Iterable): As the data loader gives them, at the full
            resolution.
        tested (bool): Whether they come from the test pipeline, which may
            deliver several views of a video. Defaults to False.

    Returns:
        dict: Statistics by ``str(subnet)``. Those of a model without batch
        norms are empty, and no batch is loaded.

    Raises:
        ConfigError: If a subnet is outside of what the model is trained for,
            or if there are batch norms but no batch.
        UsageError: If values are not finite, or if a layer gets a single one
            per channel; names the layer and the batch.
    """
    if not subnets:
        return {}
    chosen = model.space.choose(subnets)
    if not any(slim_batch_norms(model)):
        return {str(subnet): {} for subnet in chosen}
    collectors = {subnet: BatchNormCollector(model) for subnet in chosen}
    with evaluating(model):  # dropout off; collectors see to the batch norms
        _collect(model, collectors, batches, tested)
    # Not before all ranks have met: one without data must not stop alone.
    bank = {str(s): c.finish() for s, c in collectors.items()}
    if not all(bank.values()):
        raise ConfigError(
            'the batch norms cannot be calibrated: the calibration data '
            'loader gave no batch'
        )
    return bank


class _FirstError:
    """Holds back the first error of its ``with`` blocks."""

    error: Optional[Exception] = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        self.error = self.error or error
        return True


def _collect(
    model: MutualLearningMixin,
    collectors: Dict[Subnet, BatchNormCollector],
    batches: Iterable[Any],
    tested: bool,
) -> None:
    """Forward all batches, in step with the other ranks.

    Ranks may have different numbers of batches. Synchronised batch norms
    meet in every forward: there all stop with the first that has no more.
    """
    meets = any(
        isinstance(m, SlimSyncBatchNorm) for _, m in slim_batch_norms(model)
    )
    # One rank that raised by itself would leave the others waiting for it.
    held, iterator = _FirstError(), iter(())
    with held:
        iterator = iter(batches)
    for number in count(1):
        data = None
        with held:
            data = _prepared(model, iterator, tested)
        has_data = agree(data is not None, held.error)
        if not any(has_data) or (meets and not all(has_data)):
            return
        if data is None:
            continue
        for subnet, collector in collectors.items():
            resized: Any = None
            with held:
                resized = model.task.resize(model, *data, subnet)
            if meets:
                agree(error=held.error)
            # An error among forwards that meet cannot be told to the others.
            with held if not meets else nullcontext():
                if held.error is None:
                    with model.activate(subnet), collector.watch():
                        model.task.forward_batch_norms(model, *resized)
        with held:
            for subnet, collector in collectors.items():
                collector.check(
                    f'batch {number} of the calibration data at {subnet}'
                )


def _prepared(
    model: MutualLearningMixin, batches: Iterator[Any], tested: bool
) -> Optional[Tuple[Any, Any]]:
    """Load and preprocess the next batch; None after the last."""
    batch = next(batches, None)
    if batch is None:
        return None
    if isinstance(batch['inputs'], dict):
        branches = ', '.join(batch['inputs'])
        raise ConfigError(
            f'batches for calibration have branches ({branches}): give '
            'BNCalibrationHook a dataloader of plain images'
        )
    data = model.data_preprocessor(batch, False)
    inputs, samples = data['inputs'], data['data_samples']
    model.task.check_channels(model, inputs)
    check = model.task.check_test if tested else model.task.check_full
    check(model, inputs, samples)
    return inputs, samples


def move_statistics(
    bank: SubnetStatistics, device: Union[str, torch.device]
) -> SubnetStatistics:
    """Return the statistics of subnets on another device."""
    return {
        subnet: {
            layer: (mean.to(device), variance.to(device))
            for layer, (mean, variance) in statistics.items()
        }
        for subnet, statistics in bank.items()
    }
