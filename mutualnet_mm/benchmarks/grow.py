# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""How the cost of a step and of a table grows with what there is of each."""

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, List

import torch
from mmengine.config import Config

from ..apis import build_table
from ..errors import UsageError
from ..sampler import GivenSubnets
from ..subnet import Subnet
from .calibrate import spread
from .pictures import write_jpegs
from .subjects import build_subject, open_config, step_of, training_batch
from .table import CLASSES, small_config
from .turns import Call, Calls, Ratio, ratio, report, take_turns

_SUBNETS = (1, 2, 4, 6, 8)
_SIDES = (96, 128, 160, 192, 224)
_OF_TABLE = (4, 8, 16, 32)


def benchmark_grow(
    network: str = 'mobilenet-v1',
    batch_size: int = 4,
    pictures: int = 8,
    rounds: int = 3,
) -> Dict[str, Any]:
    """Time steps of more subnets, images and pixels, and longer tables.

    Args:
        network (str): Classifier of :data:`~.subjects.NETWORKS`, or a config.
        batch_size (int): Images of a step, where their number does not grow.
            Defaults to 4.
        pictures (int): That a table is calibrated on, and as many that it is
            tested on. Defaults to 8.
        rounds (int): Timed runs of each. Defaults to 3.

    Returns:
        dict: See :func:`~.turns.report`; milliseconds are named by what grows
        and how much of it there is, such as ``'step, subnets, 4'``. A ratio
        of 1 is growth by as much as there is more of it.

    Raises:
        UsageError: If the config is no classifier's.
    """
    cfg = open_config(network)
    if cfg.default_scope != 'mmpretrain':
        raise UsageError(
            f'network {network!r}: grow takes classifiers alone, whose tables '
            'it builds on made-up pictures'
        )
    calls: Calls = {}
    model = build_subject(cfg)
    plan = model.sampler.sample(0)
    for number in _SUBNETS:
        calls[f'step, subnets, {number}'] = _step(
            model, _more(model.space, number), batch_size
        )
    for number in (1, 2, 4, 8, 16):
        calls[f'step, images, {number}'] = _step(model, plan, number)
    for side in _SIDES:
        calls[f'step, side, {side}'] = _of_side(cfg, side, batch_size)
    with TemporaryDirectory() as name:
        calls.update(_tables(cfg, Path(name), pictures))
        times = take_turns(calls, rounds)
    ratios: List[Ratio] = []
    for what, few, many, more in (
        ('step, subnets', 2, 8, 7 / 1),  # of equal ones, beside the full one
        ('step, images', 4, 16, 4),
        ('step, side', 128, 224, (224 / 128) ** 2),
        ('table, subnets', 8, 32, 4),
    ):
        base = [0.0] * rounds
        if what == 'step, subnets':
            base = times['step, subnets, 1']
        above = [t - b for t, b in zip(times[f'{what}, {many}'], base)]
        below = [more * (t - b) for t, b in zip(times[f'{what}, {few}'], base)]
        ratios.append(
            ratio(f'{what}, {few} to {many} / {more:.3g} times', above, below)
        )
    return report(
        'grow',
        times,
        ratios,
        network=network,
        batch_size=batch_size,
        pictures=pictures,
        more=str(_middle(model.space)),
    )


def _middle(space: Any) -> Subnet:
    width = round((space.min_width + space.max_width) / 2, 2)
    return Subnet(width, space.resolutions[len(space.resolutions) // 2])


def _more(space: Any, number: int) -> Dict[str, Subnet]:
    plan = {'full': space.full}
    for i in range(number - 1):
        plan[f'rand{i + 1}'] = _middle(space)
    return plan


def _step(model: Any, plan: Dict[str, Subnet], size: int) -> Call:
    batch = training_batch(model, size)
    step = step_of(model, batch)[0]

    def call() -> None:
        model.sampler = GivenSubnets(model.sampler, plan)
        step()

    return call


def _of_side(cfg: Config, side: int, size: int) -> Call:
    """A step of the same widths whose full resolution is another one."""
    cfg = copy.deepcopy(cfg)
    whole = cfg.model.mutual.resolution
    cfg.model.mutual.resolution = [round(side * r / whole[0]) for r in whole]
    model = build_subject(cfg)
    return _step(model, model.sampler.sample(0), size)


def _tables(cfg: Config, folder: Path, pictures: int) -> Calls:
    for split in ('train', 'test'):
        write_jpegs(folder / split, pictures, CLASSES)
    cfg = small_config(copy.deepcopy(cfg), folder)
    model = build_subject(cfg)
    torch.save(dict(state_dict=model.state_dict()), folder / 'a.pth')
    grid = model.space.grid()
    count = iter(range(10**6))

    def build(number: int) -> None:
        build_table(
            copy.deepcopy(cfg),
            str(folder / 'a.pth'),
            folder / f'table{next(count)}',
            subnets=spread(grid, number),
        )

    def call_of(number: int) -> Call:
        return lambda: build(number)

    return {f'table, subnets, {n}': call_of(n) for n in _OF_TABLE}
