# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Calls timed in turn, and ratios with intervals."""

import random
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter, process_time
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import torch

from ..cost import machine_name

Call = Callable[[], Any]
Calls = Dict[str, Call]
Times = Dict[str, List[float]]


@dataclass(frozen=True)
class Ratio:
    """How many times as much one thing takes as another.

    Args:
        what (str): Both, as ``'a step / its arithmetic'``.
        value (float): Median of the ratios of pairs that were measured in
            the same round.
        low (float): Lower end of its 95 % interval, by bootstrap over rounds.
        high (float): Upper end.
        goal (float, optional): Largest value aimed at.
    """

    what: str
    value: float
    low: float
    high: float
    goal: Optional[float] = None


def uses_wall_time(device: str = 'cpu') -> bool:
    """Whether elapsed time counts: of one thread, that of the processor does.

    What else runs on a machine changes the latter little.

    Args:
        device (str): As PyTorch writes it. Defaults to ``'cpu'``.
    """
    return torch.device(device).type != 'cpu' or torch.get_num_threads() > 1


def take_turns(
    calls: Calls, rounds: int, device: str = 'cpu', warm_up: int = 1
) -> Times:
    """Time calls in turn, in a new order each round.

    Args:
        calls (dict): By their names.
        rounds (int): Timed runs of each.
        device (str): Whose work is waited for. Defaults to ``'cpu'``.
        warm_up (int): Runs of each before. Defaults to 1.

    Returns:
        dict: Seconds of each call, round by round.
    """
    clock = perf_counter if uses_wall_time(device) else process_time
    draw = random.Random(0)
    times: Times = {name: [] for name in calls}
    for i in range(-warm_up, rounds):
        for name in draw.sample(list(calls), len(calls)):
            _wait(device)
            start = clock()
            calls[name]()
            _wait(device)
            if i >= 0:
                times[name].append(clock() - start)
    return times


def _wait(device: str) -> None:
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


def ratio(
    what: str,
    above: Sequence[float],
    below: Sequence[float],
    goal: Optional[float] = None,
) -> Ratio:
    """Compare two series that were measured in the same rounds.

    Args:
        what (str): Both, as ``'a step / its arithmetic'``.
        above (Sequence[float]): One value for each round.
        below (Sequence[float]): As many.
        goal (float, optional): Largest value aimed at.
    """
    found = np.divide(above, below)
    draw = np.random.default_rng(0)
    drawn = draw.integers(len(found), size=(2000, len(found)))
    medians = np.median(found[drawn], axis=1)
    low, high = map(float, np.quantile(medians, (0.025, 0.975)))
    return Ratio(what, float(np.median(found)), low, high, goal)


def report(
    subject: str,
    times: Times,
    ratios: Sequence[Ratio],
    device: str = 'cpu',
    **settings: Any,
) -> Dict[str, Any]:
    """Everything that was found, in plain values.

    Args:
        subject (str): Name of the benchmark.
        times (dict): Seconds by name.
        ratios (Sequence[Ratio]): What they come to.
        device (str): That ran it. Defaults to ``'cpu'``.
        **settings: What was run, in plain values.
    """
    rounds = {len(values) for values in times.values()}
    return dict(
        subject=subject,
        machine=machine_name(device),
        torch=torch.__version__,
        clock='elapsed' if uses_wall_time(device) else 'processor',
        rounds=max(rounds, default=0),
        settings=settings,
        milliseconds={k: 1000 * median(v) for k, v in times.items()},
        ratios=[asdict(one) for one in ratios],
    )
