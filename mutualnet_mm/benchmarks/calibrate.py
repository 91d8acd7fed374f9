# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Batch-norm statistics of many subnets, at once and one by one."""

from typing import Any, Dict, List, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..engine.calibration import calibrate
from ..models import static_model
from ..subnet import Subnet
from .pictures import batches, jpegs
from .subjects import build_subject, open_config
from .turns import ratio, report, take_turns

_Sums = Dict[str, List[Tensor]]


def benchmark_calibrate(
    network: str = 'mobilenet-v1',
    subnets: int = 64,
    num_batches: int = 4,
    batch_size: int = 8,
    rounds: int = 3,
) -> Dict[str, Any]:
    """Compare calibration with PreciseBN of each narrow network.

    Pictures are decoded and cropped whenever a batch is loaded.

    Args:
        network (str): Classifier of :data:`~.subjects.NETWORKS`, or a config.
        subnets (int): How many, spread over the grid. Defaults to 64.
        num_batches (int): Batches of each. Defaults to 4.
        batch_size (int): Pictures of a batch. Defaults to 8.
        rounds (int): Timed runs of each. Defaults to 3.

    Returns:
        dict: See :func:`~.turns.report`; ``difference`` is the largest
        difference of a mean, in standard deviations.
    """
    model = build_subject(open_config(network)).eval()
    chosen = spread(model.space.grid(), subnets)
    pictures = jpegs(num_batches * batch_size)
    side = model.space.full.resolution
    # Built before the clock starts: that they are is no part of PreciseBN.
    networks = {subnet: static_model(model, subnet) for subnet in chosen}
    found: Dict[str, Any] = {}

    def decoded() -> Any:
        return batches(pictures, side, batch_size)

    def at_once() -> None:
        found['at once'] = calibrate(model, chosen, decoded())

    def one_by_one() -> None:
        found['one by one'] = {
            str(s): precise_bn(net, model, s, decoded())
            for s, net in networks.items()
        }

    calls = {'at once': at_once, 'PreciseBN': one_by_one}
    times = take_turns(calls, rounds, warm_up=0)
    return report(
        'calibrate',
        times,
        [
            ratio(
                'at once / PreciseBN',
                *(times['at once'], times['PreciseBN'], 1 / 5),
            )
        ],
        network=network,
        subnets=len(chosen),
        pictures=len(pictures),
        difference=_difference(found['at once'], found['one by one']),
    )


def spread(grid: List[Subnet], number: int) -> List[Subnet]:
    """Choose so many subnets evenly; all if there are not more."""
    places = np.linspace(0, len(grid) - 1, min(number, len(grid)))
    return [grid[int(place + 0.5)] for place in places]


@torch.no_grad()
def precise_bn(
    net: nn.Module, model: Any, subnet: Subnet, loaded: Any
) -> Dict[str, Tuple[Tensor, Tensor]]:
    """Mean over batches of each batch's statistics.

    Args:
        net (nn.Module): The narrow network.
        model (nn.Module): The one that it was cut from, which knows how
            inputs are resized.
        subnet (Subnet): Which one it is.
        loaded (Iterable): Batches.
    """
    norms = {
        name: layer
        for name, layer in net.named_modules()
        if isinstance(layer, _BatchNorm)
    }
    sums: Dict[str, List[Any]] = {name: [0.0, 0.0, 0] for name in norms}
    for layer in norms.values():
        layer.train()
        layer.momentum = 1.0  # what it keeps is the last batch's
    for batch in loaded:
        data = model.data_preprocessor(batch, False)
        resized = model.task.resize(
            model, data['inputs'], data['data_samples'], subnet
        )
        net(resized[0], mode='tensor')
        for name, layer in norms.items():
            sums[name][0] = sums[name][0] + layer.running_mean
            sums[name][1] = sums[name][1] + layer.running_var
            sums[name][2] += 1
    return {name: (m / n, v / n) for name, (m, v, n) in sums.items()}


def _difference(found: Any, expected: Any) -> float:
    return max(
        float(((mean - other[0]).abs() / (variance + 1e-5).sqrt()).max())
        for subnet, layers in found.items()
        for name, (mean, variance) in layers.items()
        for other in [expected[subnet][name]]
    )
