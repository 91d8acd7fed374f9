# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A sliced forward pass against that of a narrow network of its own."""

from typing import Any, Dict, Optional, Sequence

import torch

from ..models import static_model
from ..subnet import Subnet
from .subjects import build_subject, open_config, training_batch
from .turns import Call, Times, ratio, report, take_turns

_GOALS = {1: 1.08, 8: 1.05}


def benchmark_infer(
    network: str = 'mobilenet-v1',
    batch_sizes: Sequence[int] = (1, 8),
    rounds: int = 30,
    device: str = 'cpu',
    subnet: Optional[str] = None,
) -> Dict[str, Any]:
    """Compare bare forward passes of one subnet, sliced and static.

    Args:
        network (str): One of :data:`~.subjects.NETWORKS`, or a config.
        batch_sizes (Sequence[int]): Defaults to (1, 8).
        rounds (int): Timed passes of each. Defaults to 30.
        device (str): Defaults to ``'cpu'``.
        subnet (str, optional): Which one. Defaults to the smallest.

    Returns:
        dict: See :func:`~.turns.report`.
    """
    model = build_subject(open_config(network), device).eval()
    chosen = model.space.check(subnet or model.space.smallest)
    # Whatever statistics they have: the same work is done.
    net = static_model(model, chosen).eval()
    statistics = {
        name: (layer.running_mean, layer.running_var)
        for name, layer in net.named_modules()
        if getattr(layer, 'running_mean', None) is not None
    }
    times: Times = {}
    ratios = []
    for size in batch_sizes:
        inputs = _inputs(model, chosen, size)
        calls = {
            f'sliced, batch {size}': _passing(model, inputs),
            f'static, batch {size}': _passing(net, inputs),
        }
        # Switched to before, as when it is deployed.
        with torch.no_grad(), model.activate(chosen, statistics):
            found = take_turns(calls, rounds, device, warm_up=3)
        times.update(found)
        ratios.append(
            ratio(
                f'sliced / static, batch {size}',
                found[f'sliced, batch {size}'],
                found[f'static, batch {size}'],
                _GOALS.get(size),
            )
        )
    return report(
        'infer', times, ratios, device, network=network, subnet=str(chosen)
    )


@torch.no_grad()
def _inputs(model: Any, subnet: Subnet, size: int) -> Any:
    batch = training_batch(model, size)
    data = model.data_preprocessor(batch, False)
    return model.task.resize(
        model, data['inputs'], data['data_samples'], subnet
    )[0]


def _passing(net: Any, inputs: Any) -> Call:
    return lambda: net.task.forward_cost(net, inputs)
