# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Seconds of a training iteration, on the machine at hand."""

from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from time import perf_counter
from typing import Callable, Dict, Iterable, Sequence

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from ..config.pipelines import loaders_of
from ..config.runner import check_training
from ..models.build import build_model
from ..sampler import GivenSubnets
from ..subnet import Subnet
from .machine import machine_name
from .macs import count_macs
from .training_cost import teacher_macs


@dataclass(frozen=True)
class StepTimes:
    """A training iteration of mutual learning and of the full network.

    Args:
        mutual (float): Median seconds of mutual learning.
        full (float): Median seconds of the full network alone.
        ratio (float): Median of their ratio, pair by pair.
        macs_ratio (float): The same for the multiply-accumulates of the very
            subnets that were timed.
        pairs (int): How many of each were timed.
        batch_size (int): Images of an iteration.
        machine (str): Machine that ran them.
    """

    mutual: float
    full: float
    ratio: float
    macs_ratio: float
    pairs: int
    batch_size: int
    machine: str


def measure_steps(
    cfg: Config,
    pairs: int = 20,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> StepTimes:
    """Time training iterations of mutual learning and of the full network.

    Both are whole iterations of the config's model and optimizer on the first
    batch of its ``train_dataloader`` (of several, the first), on the device
    at hand and in turn, so that whatever else slows the machine slows both.
    Loading is left out. The learning rate is 0: nothing is trained.

    Args:
        cfg (Config): As :func:`~.config.load_config` returns it.
        pairs (int): Iterations of each, after two that are not timed.
            Defaults to 20.
        track (Callable): Wraps the iteration over the pairs, to show
            progress. Defaults to showing none.

    Raises:
        UsageError: If there is no ``train_dataloader`` or ``optim_wrapper``,
            or if mixed precision is wanted without a GPU.
    """
    check_training(cfg, ('train_dataloader', 'optim_wrapper'))
    model = build_model(cfg).to(get_device())
    model.train()
    batch = _first_batch(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    for group in optimizer.param_groups:
        group['lr'] = 0.0
    sampler, full = model.sampler, model.space.full
    shape = tuple(batch['inputs'][0].shape[-2:])
    count = lru_cache(maxsize=None)(
        lambda subnet: count_macs(model, subnet, shape)
    )

    teacher = lru_cache(maxsize=None)(
        lambda full: teacher_macs(model, shape, full)
    )

    def seconds(subnets: Dict[str, Subnet]) -> float:
        model.sampler = GivenSubnets(sampler, subnets)
        data = deepcopy(batch)  # some preprocessors write into it
        _wait()
        start = perf_counter()
        model.train_step(data, optimizer)
        _wait()
        return perf_counter() - start

    rows = []
    for i in track(range(-2, pairs)):
        drawn = sampler.sample(i + 2)
        times = seconds(drawn), seconds({'full': full})
        if i >= 0:
            macs = sum(map(count, drawn.values())) + teacher(drawn['full'])
            rows.append((*times, times[0] / times[1], macs / count(full)))
    mutual, alone, ratio, macs_ratio = map(median, zip(*rows))
    return StepTimes(
        mutual,
        alone,
        ratio,
        macs_ratio,
        pairs,
        len(batch['inputs']),
        machine_name('cuda' if torch.cuda.is_available() else 'cpu'),
    )


def _first_batch(cfg: Config) -> dict:
    _, settings = next(loaders_of(cfg, 'train'))
    # No workers, which would load the next batches meanwhile.
    loader = dict(settings, num_workers=0, persistent_workers=False)
    loader.pop('prefetch_factor', None)
    return next(iter(Runner.build_dataloader(loader, seed=0)))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
