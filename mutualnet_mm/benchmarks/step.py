# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A training step against its arithmetic, and against the published loop."""

from typing import Any, Dict

import torch

from ..cost import MacsByWidth
from ..sampler import GivenSubnets
from .published_loop import PublishedLoop
from .subjects import (
    build_subject,
    narrow_networks,
    open_config,
    step_of,
    training_batch,
)
from .turns import ratio, report, take_turns, uses_wall_time


def benchmark_step(
    network: str = 'mobilenet-v1',
    batch_size: int = 8,
    rounds: int = 10,
    device: str = 'cpu',
) -> Dict[str, Any]:
    """Compare a mutual step with stock steps, data being in memory.

    Args:
        network (str): One of :data:`~.subjects.NETWORKS`, or a config.
        batch_size (int): Images of a step. Defaults to 8.
        rounds (int): Timed steps of each. Defaults to 10.
        device (str): Defaults to ``'cpu'``.

    Returns:
        dict: See :func:`~.turns.report`. The arithmetic of a step is that of
        its subnets in multiply-accumulates, relative to the full network's;
        of detectors, that of backbone and neck.
    """
    model = build_subject(open_config(network), device)
    plan = model.sampler.sample(0)
    model.sampler = GivenSubnets(model.sampler, plan)
    batch = training_batch(model, batch_size)
    networks = narrow_networks(model, plan, batch)
    calls = {'mutual': step_of(model, batch)[0]}
    for tag, net in networks.items():
        net.train()
        calls[tag] = step_of(net, batch)[0]
    is_classifier = model.task.name == 'classification'
    if is_classifier:
        calls['published'] = _published_step(model, plan, batch, device)
    times = take_turns(calls, rounds, device)
    count = MacsByWidth(model)
    macs = {tag: count(subnet) for tag, subnet in plan.items()}
    arithmetic = sum(macs.values()) / macs['full']
    mutual, full = times['mutual'], times['full']
    alone = [sum(parts) for parts in zip(*(times[tag] for tag in plan))]
    ratios = [
        ratio(
            'mutual step / full step x arithmetic',
            mutual,
            [arithmetic * seconds for seconds in full],
            1.05 if uses_wall_time(device) and device != 'cpu' else 1.10,
        ),
        ratio('mutual step / sum of narrow steps', mutual, alone, 1.05),
        ratio(
            'sum of narrow steps / full step x arithmetic',
            alone,
            [arithmetic * seconds for seconds in full],
        ),
    ]
    if is_classifier:
        ratios.append(
            ratio(
                'mutual step / published loop',
                mutual,
                times['published'],
                0.85,
            )
        )
    return report(
        'step',
        times,
        ratios,
        device,
        network=network,
        batch_size=batch_size,
        plan={tag: str(subnet) for tag, subnet in plan.items()},
        arithmetic=arithmetic,
    )


def _published_step(model: Any, plan: Any, batch: Any, device: str) -> Any:
    loop = PublishedLoop(narrow_networks(model, plan, batch), plan)
    loop.net.train()
    data = model.data_preprocessor(
        dict(inputs=batch['inputs'], data_samples=batch['data_samples']), True
    )
    images = data['inputs']
    labels = torch.cat([s.gt_label for s in batch['data_samples']]).to(device)
    return lambda: loop.step([images], labels)
