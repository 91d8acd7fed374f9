# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The query table: what every subnet costs and how good it is."""

import math
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ..errors import ConfigError
from ..subnet import Subnet
from .intervals import metric_interval

COSTS = ('macs', 'latency_ms', 'params')
"""What a budget may limit."""


@dataclass(frozen=True)
class TableEntry:
    """One subnet of a table.

    Args:
        subnet (Subnet): Which one.
        macs (int): Multiply-accumulates for an image, or for one view of a
            video.
        params (int): Parameters that it reads.
        metrics (Mapping): Values of the evaluator by their stock names; None
            where a value is not a number (NaN).
        latency_ms (float, optional): Measured for an image or view, in
            milliseconds. Defaults to None, not measured.
    """

    subnet: Subnet
    macs: int
    params: int
    metrics: Mapping[str, Optional[float]] = field(default_factory=dict)
    latency_ms: Optional[float] = None


class QueryTable:
    """All subnets of a network, and the best one for a budget (Sec. 3.3).

    Holds plain values. Subnets are ranked by one metric, of which more is
    better; a subnet without a value of it is never chosen.

    Args:
        entries (Sequence[TableEntry]): One for each subnet.
        metric (str): What ranks them, such as ``'accuracy/top1'``.
        task (str): Such as ``'classification'``.
        full (Subnet): The full network, in the table or not.
        num_images (int, optional): Images or videos that the metrics were
            measured on. Defaults to None, unknown.
        views (int, optional): Of a video, each of which costs an entry's
            MACs. Defaults to None, for images.

    Raises:
        ConfigError: If a subnet comes twice, or none has the metric.
    """

    def __init__(
        self,
        entries: Sequence[TableEntry],
        metric: str,
        task: str,
        full: Subnet,
        num_images: Optional[int] = None,
        views: Optional[int] = None,
    ) -> None:
        self.entries = tuple(entries)
        self.metric = metric
        self.task = task
        self.full = full
        self.num_images = num_images
        self.views = views
        subnets = [entry.subnet for entry in self.entries]
        twice = [s for s in subnets if subnets.count(s) > 1]
        if twice:
            raise ConfigError(f'subnet {twice[0]} is in the table twice')
        self._scores: Dict[Subnet, float] = {}
        for entry in self.entries:
            score = entry.metrics.get(metric)
            if score is not None and not math.isnan(score):
                self._scores[entry.subnet] = score
        self._ranked = [e for e in self.entries if e.subnet in self._scores]
        if not self._ranked:
            raise ConfigError(
                f'no subnet of the table has metric {metric!r}: use '
                f'{" or ".join(self.metrics) or "another evaluator"}'
            )

    @property
    def metrics(self) -> List[str]:
        """Names of the metrics that there are."""
        names: Dict[str, None] = {}
        for entry in self.entries:
            names.update(dict.fromkeys(entry.metrics))
        return list(names)

    def ranked_by(self, metric: str) -> 'QueryTable':
        """Return the same table ranked by another metric."""
        return QueryTable(
            self.entries,
            metric,
            self.task,
            self.full,
            self.num_images,
            self.views,
        )

    def score(self, entry: TableEntry) -> Optional[float]:
        """Value of the metric that ranks, None if the entry has none."""
        return self._scores.get(entry.subnet)

    def interval(self, entry: TableEntry) -> Optional[Tuple[float, float]]:
        """95 % interval of the score, see :func:`~.metric_interval`."""
        return metric_interval(self.metric, self.score(entry), self.num_images)

    @property
    def pareto(self) -> List[TableEntry]:
        """Entries that no other one beats in MACs and score, cheapest first.

        One beats another if it is no worse in either and better in one; twins
        of equal MACs and score are both in.
        """
        front: List[TableEntry] = []
        for entry in sorted(self._ranked, key=self._macs_and_loss):
            if (
                not front
                or self._scores[entry.subnet] > self._scores[front[-1].subnet]
                or self._macs_and_loss(entry) == self._macs_and_loss(front[-1])
            ):
                front.append(entry)
        return front

    def _macs_and_loss(self, entry: TableEntry) -> Tuple[float, float]:
        return entry.macs, -self._scores[entry.subnet]

    def best(
        self,
        macs: Optional[float] = None,
        latency_ms: Optional[float] = None,
        params: Optional[float] = None,
    ) -> TableEntry:
        """Look up the best subnet within all budgets given.

        Of equally good ones it is the one of the fewest MACs. Under a budget
        of MACs alone it is in :attr:`pareto`; one of latency or parameters
        may make another subnet the best.

        Args:
            macs (float, optional): Multiply-accumulates at most.
            latency_ms (float, optional): Milliseconds at most; subnets not
                measured are left out.
            params (float, optional): Parameters at most.

        Raises:
            ConfigError: If a budget is no positive number or below the least
                that the table has, which is named.
        """
        budgets = {
            name: budget
            for name, budget in zip(COSTS, (macs, latency_ms, params))
            if budget is not None
        }
        for name, budget in budgets.items():
            if not isinstance(budget, (int, float)) or not budget > 0:
                raise ConfigError(
                    f'budget {name}={budget!r}: use a positive number'
                )
        within = [
            entry
            for entry in self._ranked
            if all(_cost(entry, n) <= budget for n, budget in budgets.items())
        ]
        if not within:
            raise ConfigError(self._why_none(budgets))
        return min(
            within,
            key=lambda entry: (
                -self._scores[entry.subnet],
                *(_cost(entry, name) for name in COSTS),
            ),
        )

    def _why_none(self, budgets: Mapping[str, float]) -> str:
        found = []
        for name in budgets:
            costs = [_cost(entry, name) for entry in self._ranked]
            least = min(costs)
            if math.isinf(least):
                return f'the table has no {name}: give a budget of {COSTS[0]}'
            subnet = self._ranked[costs.index(least)].subnet
            found.append(f'{name}={least:,} of {subnet}')
        given = ' and '.join(f'{k}={v:,}' for k, v in budgets.items())
        return (
            f'no subnet is within {given}: the least is {" and ".join(found)}'
        )


def _cost(entry: TableEntry, name: str) -> float:
    cost = getattr(entry, name)
    return math.inf if cost is None else cost
