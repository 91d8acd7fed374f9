"""Timing of calls in turn, and ratios with intervals."""

import random
from statistics import median
from time import perf_counter
from typing import Any, Callable, Dict, List

import numpy as np
import torch

FEWEST = 3  # rounds, however long they take
_TURN = 0.02  # seconds at least

Calls = Dict[str, Callable[[], Any]]
Times = Dict[str, List[float]]


def clock(call: Callable[[], Any]) -> float:
    """Return the seconds of a call, the device's work included."""
    _wait()
    start = perf_counter()
    call()
    _wait()
    return perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@torch.no_grad()
def take_turns(calls: Calls, rounds: int, limit: float) -> Times:
    """Time calls in turn: the seconds of each one, round by round.

    Whatever else slows the machine slows all. The order is new in each round,
    and a turn is the median of as many calls as fit into a moment: what the
    one before left in the caches does not count.

    Args:
        calls (dict): By their names.
        rounds (int): To take, if there is time.
        limit (float): Seconds after which no further round is begun, once
            there are a few.
    """
    for call in calls.values():
        call()
    number = int(_TURN / min(map(clock, calls.values())))
    number = max(1, min(number, 50))
    draw = random.Random(0)
    times: Times = {name: [] for name in calls}
    start = perf_counter()
    for i in range(rounds):
        if i >= FEWEST and perf_counter() - start > limit:
            break
        for name in draw.sample(list(calls), len(calls)):
            turn = [clock(calls[name]) for _ in range(number)]
            times[name].append(median(turn))
    return times


def ratio(above: List[float], below: List[float]) -> List[float]:
    """Return the ratio of two medians and the ends of its 95 % interval.

    Rounds are drawn anew (bootstrap), both times of a round together.
    """
    pairs = np.array([above, below])
    rounds = pairs.shape[1]
    drawn = np.random.default_rng(0).integers(rounds, size=(2000, rounds))
    found = np.divide(*np.median(pairs[:, drawn], axis=-1))
    whole = np.divide(*np.median(pairs, axis=-1))
    return [float(whole), *map(float, np.quantile(found, (0.025, 0.975)))]
