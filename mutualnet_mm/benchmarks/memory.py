# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Memory of a training step against that of the full network alone."""

from functools import partial
from statistics import median
from typing import Any, Dict

from mmengine.config import Config

from ..sampler import GivenSubnets
from .children import Works, both
from .subjects import (
    build_subject,
    narrow_networks,
    open_config,
    step_of,
    training_batch,
)
from .turns import Call, ratio, report


def benchmark_memory(
    network: str = 'mobilenet-v1', batch_size: int = 8, rounds: int = 3
) -> Dict[str, Any]:
    """Compare the largest memory of a second step, weights included.

    Each runs in processes of its own; what was imported does not count.

    Args:
        network (str): One of :data:`~.subjects.NETWORKS`, or a config.
        batch_size (int): Images of a step. Defaults to 8.
        rounds (int): Processes of each. Defaults to 3.

    Returns:
        dict: See :func:`~.turns.report`; ``mebibytes`` are medians.
    """
    cfg = open_config(network)
    works: Works = {
        'mutual': partial(_mutual, cfg, batch_size),
        'full alone': partial(_full, cfg, batch_size),
    }
    seconds, mebibytes = both(works, rounds)
    what = 'memory of a mutual step / of a full step'
    return report(
        'memory',
        seconds,
        [ratio(what, mebibytes['mutual'], mebibytes['full alone'], 1.05)],
        network=network,
        batch_size=batch_size,
        mebibytes={name: median(found) for name, found in mebibytes.items()},
    )


def _mutual(cfg: Config, size: int) -> Call:
    model = build_subject(cfg)
    plan = model.sampler.sample(0)
    model.sampler = GivenSubnets(model.sampler, plan)
    return _second(model, training_batch(model, size))


def _full(cfg: Config, size: int) -> Call:
    model = build_subject(cfg)
    batch = training_batch(model, size)
    # Of one image: what calibration takes is no part of a step.
    small = training_batch(model, 1)
    net = narrow_networks(model, {'full': model.space.full}, small)['full']
    del model
    net.train()
    return _second(net, batch)


def _second(model: Any, batch: Dict[str, Any]) -> Call:
    """The second step: the optimizer has its state by then."""
    step, _ = step_of(model, batch)
    step()
    return step
