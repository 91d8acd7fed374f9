# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Batch-norm statistics of many subnets, from one pass over the data."""

from typing import Any, Dict, Iterable, Sequence

import torch

from ..errors import ConfigError
from ..models import MutualLearningMixin
from ..slimmable import BatchNormCollector, Statistics, slim_batch_norms
from ..subnet import Subnet

SubnetStatistics = Dict[str, Statistics]
"""Statistics keyed by ``str(subnet)``."""


@torch.no_grad()
def calibrate(
    model: MutualLearningMixin,
    subnets: Sequence[Subnet],
    batches: Iterable[Any],
) -> SubnetStatistics:
    """Collect exact statistics of every subnet (Sec. 3.2).

    Each batch is loaded once and forwarded through every subnet; labels are
    not used and no running statistics move. Batches are pooled over ranks.

    Args:
        model (MutualLearningMixin): Unwrapped; its mode is kept.
        subnets (Sequence[Subnet]): Whose statistics to find.
        batches (Iterable): As the data loader gives them, at the full
            resolution.

    Returns:
        dict: Statistics by ``str(subnet)``; empty where the model has no
        batch norm.

    Raises:
        ConfigError: If there are batch norms but no batch.
    """
    if not subnets or not any(slim_batch_norms(model)):
        return {}
    collectors = {str(s): BatchNormCollector(model) for s in subnets}
    mode = model.training
    model.eval()  # dropout off; the collectors see to the batch norms
    try:
        for batch in batches:
            data = model.data_preprocessor(batch, False)
            inputs, samples = data['inputs'], data['data_samples']
            model.task.check_full(model, inputs, samples)
            for subnet in subnets:
                collector = collectors[str(subnet)]
                resized = model.task.resize(model, inputs, samples, subnet)
                with model.activate(subnet), collector.watch():
                    model.task.features(model, *resized)
    finally:
        model.train(mode)
    # Not before all ranks have met: one without data must not stop alone.
    bank = {key: collector.finish() for key, collector in collectors.items()}
    if not all(bank.values()):
        raise ConfigError(
            'the batch norms cannot be calibrated: the calibration data '
            'loader gave no batch'
        )
    return bank
