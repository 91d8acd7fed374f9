# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Cascades: a small subnet first, a larger one where it is not sure."""

from dataclasses import dataclass
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..errors import UsageError, is_number
from ..subnet import Subnet

MEASURE = 'max probability'
"""How sure a subnet is of an image: the probability of its answer."""

# Steps of the budgets that cascades are sought for: 9 % of the mean, 41 % of
# the worst case.
_MEAN_STEP, _WORST_STEP = 2 ** (1 / 8), 2**0.5


@dataclass(frozen=True)
class Cascade:
    """Two subnets, of which the second runs where the first is not sure.

    Args:
        stages (tuple[Subnet, Subnet]): The small one, which runs on every
            image, and the large one.
        threshold (float): Where the largest probability that the first one
            gives is below it, the second one runs, and its answer counts.
        mean_macs (float): Multiply-accumulates of an image, or of one view of
            a video, on average over the images of the table.
        macs (int): Those of an image that both run on: the worst case.
        metric (str): What ``accuracy`` is, such as ``'accuracy/top1'``.
        accuracy (float): In the metric's own unit; measured on other images
            than those that stages and threshold are chosen on, see
            :func:`find_cascades`.
    """

    stages: Tuple[Subnet, Subnet]
    threshold: float
    mean_macs: float
    macs: int
    metric: str
    accuracy: float

    def __post_init__(self) -> None:
        if not is_number(self.threshold):
            raise UsageError(
                f'a cascade has threshold={self.threshold!r}: give a finite '
                'number, such as 0.8'
            )

    def __str__(self) -> str:
        """Such as ``'0.25x-128, below 0.83 1.0x-224'``."""
        first, second = self.stages
        return f'{first}, below {self.threshold:.3g} {second}'


class Rule(NamedTuple):
    """Which subnets run, by their numbers, and when the second one does.

    Args:
        first (int): Runs on every image.
        second (int): Runs where the first one's confidence is below
            ``threshold``.
        threshold (float): Between two confidences, equal to none.
    """

    first: int
    second: int
    threshold: float


class FoundRule(NamedTuple):
    """A rule and what it gives.

    Args:
        rule (Rule): Which.
        share (float): Of the images, those that the second subnet runs on.
        accuracy (float): Share of right answers on images that the rule's
            counterpart was not chosen on.
    """

    rule: Rule
    share: float
    accuracy: float


def find_cascades(
    macs: Sequence[int],
    right: np.ndarray,
    confidence: np.ndarray,
    seed: int = 0,
) -> List[FoundRule]:
    """Find the pairs of subnets and thresholds that are the best for a cost.

    A cascade of subnets a and b costs ``macs[a] + P(confidence[a] < t) *
    macs[b]`` on average and ``macs[a] + macs[b]`` in the worst case. For
    budgets in steps of 9 % (mean) and 41 % (worst case), the best one on all
    images is sought among all pairs with ``macs[a] < macs[b]`` and all
    thresholds between two confidences.

    Accuracies are cross-fitted: images are split in two halves by chance. On
    each half, the best cascade within the mean and the worst case of the one
    that was found is sought anew, and measured on the other half. The mean of
    both, over all images, is what counts. So no image says how good a choice
    is that it had a part in. (As among single subnets, those that did well by
    chance are a little more likely to be among the best.)

    Args:
        macs (Sequence[int]): Cost of each of S subnets.
        right (ndarray): Whether each subnet's answer is right, for N images:
            bool, (S, N).
        confidence (ndarray): How sure each subnet is, (S, N). One that is not
            a number counts as less than any.
        seed (int): Of the split. Defaults to 0.

    Returns:
        list[FoundRule]: Those that no single subnet and no other cascade beats
        in mean, worst case and accuracy; the cheapest on average first.
    """
    costs = np.asarray(macs, dtype=np.float64)
    sure = np.nan_to_num(confidence.astype(np.float64), nan=-1.0)
    chosen = [
        rule for rule in _best(costs, right, sure, _budgets(costs)) if rule
    ]
    rules = sorted(set(chosen))
    shares = [(sure[r.first] < r.threshold).mean() for r in rules]
    spent = np.array(
        [
            (
                costs[r.first] + share * costs[r.second],
                costs[r.first] + costs[r.second],
            )
            for r, share in zip(rules, shares)
        ]
    ).reshape(-1, 2)
    accuracies = _cross_fitted(costs, right, sure, spent, seed)
    found = [
        (FoundRule(*parts), cost)
        for *parts, cost in zip(rules, shares, accuracies, spent)
        if parts[2] is not None
    ]
    singles = [(cost, cost, r.mean()) for cost, r in zip(costs, right)]
    others = [(*cost, rule.accuracy) for rule, cost in found]
    kept = _front(np.array(singles + others).reshape(-1, 3))
    best = [pair for pair, keep in zip(found, kept[len(singles) :]) if keep]
    return [rule for rule, _ in sorted(best, key=lambda pair: pair[1][0])]


def _budgets(costs: np.ndarray) -> np.ndarray:
    """Pairs of a mean and a worst case, (B, 2), down to the least cost."""
    least, most = costs.min(), costs.max()
    means, worsts = [most], [2 * most]
    while means[-1] > least:
        means.append(means[-1] / _MEAN_STEP)
    while worsts[-1] > 2 * least:
        worsts.append(worsts[-1] / _WORST_STEP)
    pairs = [(mean, worst) for worst in worsts for mean in means]
    return np.array([pair for pair in pairs if pair[0] < pair[1]])


def _best(
    costs: np.ndarray,
    right: np.ndarray,
    sure: np.ndarray,
    budgets: np.ndarray,
) -> List[Optional[Rule]]:
    """The most accurate rule within each budget, on these images."""
    number = right.shape[1]
    mean, worst = budgets.T
    most = np.full(len(budgets), -1)
    rules: List[Optional[Rule]] = [None] * len(budgets)
    for first in np.argsort(costs, kind='stable'):
        seconds = np.flatnonzero(costs > costs[first])
        if not len(seconds) or number < 2:
            continue
        order = np.argsort(sure[first], kind='stable')
        rising = sure[first][order]
        # Right answers if the 1, 2, ... N - 1 least sure images go on.
        gains = right[seconds][:, order].astype(np.int32) - right[first][order]
        counts = right[first].sum() + np.cumsum(gains, axis=1)[:, :-1]
        # No threshold lies between two equal confidences.
        counts[:, rising[1:] == rising[:-1]] = -1
        highest = np.maximum.accumulate(counts, axis=1)
        price = costs[seconds][:, None]
        # How many images may go on, of each second subnet and budget.
        # A millionth is what rounding may take from the budget of a rule.
        limit = np.floor((mean - costs[first]) * number / price + 1e-6)
        limit = np.clip(limit, 0, number - 1).astype(int)
        limit[costs[first] + price > worst] = 0
        value = np.take_along_axis(highest, np.maximum(limit - 1, 0), axis=1)
        value[limit == 0] = -1
        rows = value.argmax(axis=0)
        tops = value.max(axis=0)
        for i in np.flatnonzero(tops > most):
            most[i] = tops[i]
            row = rows[i]
            # The first of equals lets the fewest images go on.
            last = counts[row, : limit[row, i]].argmax()
            threshold = (rising[last] + rising[last + 1]) / 2
            rules[i] = Rule(int(first), int(seconds[row]), float(threshold))
    return rules


def _cross_fitted(
    costs: np.ndarray,
    right: np.ndarray,
    sure: np.ndarray,
    budgets: np.ndarray,
    seed: int,
) -> List[Optional[float]]:
    """Accuracy within each budget, of rules found on the other half."""
    number = right.shape[1]
    mixed = np.random.default_rng(seed).permutation(number)
    halves = mixed[: number // 2], mixed[number // 2 :]
    counts: List[Optional[int]] = [0] * len(budgets)
    for here, there in (halves, halves[::-1]):
        rules = _best(costs, right[:, here], sure[:, here], budgets)
        for i, rule in enumerate(rules):
            count = counts[i]
            if rule is None or count is None:
                counts[i] = None
                continue
            goes_on = sure[rule.first][there] < rule.threshold
            answers = right[[rule.first, rule.second]][:, there]
            counts[i] = count + int(np.where(goes_on, *answers[::-1]).sum())
    return [None if count is None else count / number for count in counts]


def _front(points: np.ndarray) -> np.ndarray:
    """Which points, (mean, worst case, accuracy), no other one beats.

    Of equals the first one stays.
    """
    loss = points * (1, 1, -1)
    kept = np.ones(len(points), dtype=bool)
    for i, point in enumerate(loss):
        no_worse = (loss <= point).all(axis=1)
        equal = (loss == point).all(axis=1)
        kept[i] = not (no_worse & ~equal).any() and not equal[:i].any()
    return kept
