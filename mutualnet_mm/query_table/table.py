# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The query table: what every subnet costs and how good it is."""

import math
from dataclasses import replace
from typing import (
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
    cast,
)

from ..errors import UsageError
from ..subnet import Subnet
from .cascades import Cascade
from .entry import COSTS, MEASURED, Latency, TableEntry
from .intervals import metric_interval
from .lookup import (
    all_within,
    best_within,
    cheapest_of,
    how_to_measure,
    less_is_better,
    pareto_front,
)
from .resampling import drawn_interval, is_shown_better

Choice = Union[TableEntry, Cascade]
"""What a budget may buy: both have ``mean_macs`` and ``macs``."""


PREFERENCES = ('best', 'cheapest')
"""Which of the subnets within a budget is chosen."""


class QueryTable:
    """All subnets of a network, and the best one for a budget (Sec. 3.3).

    It holds plain values. Subnets are ranked by one metric, where higher is
    better; a subnet without a value for it is never chosen.

    Args:
        entries (Sequence[TableEntry]): One for each subnet.
        metric (str): Metric that ranks them, such as ``'accuracy/top1'``.
        task (str): Such as ``'classification'``.
        full (Subnet): The full network, in the table or not.
        num_images (int, optional): Images or videos that the metrics were
            measured on. Defaults to None, unknown.
        views (int, optional): Views of a video, each of which costs an
            entry's MACs. Defaults to None, for images.
        cascades (Sequence[Cascade], optional): The best ones for their cost.
            Defaults to None: none were sought.

    Attributes:
        entries (tuple[TableEntry]): As given, and so are all others.

    Raises:
        UsageError: If a subnet is in twice, if none has the metric, or if a
            cascade is not one of the entries.
    """

    def __init__(
        self,
        entries: Sequence[TableEntry],
        metric: str,
        task: str,
        full: Subnet,
        num_images: Optional[int] = None,
        views: Optional[int] = None,
        cascades: Optional[Sequence[Cascade]] = None,
    ) -> None:
        self.entries = tuple(entries)
        self.metric = metric
        self.task = task
        self.full = full
        self.num_images = num_images
        self.views = views
        self.cascades = None if cascades is None else tuple(cascades)
        self._by_subnet: Dict[Subnet, TableEntry] = {}
        self._scores: Dict[Subnet, float] = {}  # of those that are ranked
        for entry in self.entries:
            if entry.subnet in self._by_subnet:
                raise UsageError(
                    f'subnet {entry.subnet} is in the table twice'
                )
            self._by_subnet[entry.subnet] = entry
            score = entry.metrics.get(metric)
            if score is not None and not math.isnan(score):
                self._scores[entry.subnet] = score
        if not self._scores:
            raise UsageError(
                f'no subnet of the table has metric {metric!r}: use '
                f'{" or ".join(self.metrics) or "another evaluator"}'
            )
        for cascade in self.cascades or ():
            self._check_cascade(cascade)

    def _check_cascade(self, cascade: Cascade) -> None:
        missing = [s for s in cascade.stages if s not in self._by_subnet]
        if missing:
            raise UsageError(f'cascade {cascade}: there is no {missing[0]}')
        first, second = (self._by_subnet[s].macs for s in cascade.stages)
        if cascade.macs != first + second or not (
            first <= cascade.mean_macs <= cascade.macs
        ):
            raise UsageError(
                f'cascade {cascade}: its subnets take {first} and {second} '
                f'MACs, it cannot take {cascade.mean_macs} and {cascade.macs}'
            )

    def __repr__(self) -> str:
        return (
            f'QueryTable({len(self.entries)} subnets of a {self.full} '
            f'({self.task}), ranked by {self.metric!r})'
        )

    @property
    def metrics(self) -> List[str]:
        """Names of the metrics in the table."""
        names: Dict[str, None] = {}
        for entry in self.entries:
            names.update(dict.fromkeys(entry.metrics))
        return list(names)

    @property
    def devices(self) -> List[str]:
        """Names of the devices that latencies were measured on."""
        names: Dict[str, None] = {}
        for entry in self.entries:
            names.update(dict.fromkeys(entry.latency_ms))
        return list(names)

    def find_device(
        self,
        device: Optional[str] = None,
        costs: Sequence[str] = ('latency_ms',),
    ) -> str:
        """Check and return the name of a measured device.

        Args:
            device (str, optional): May be left out if there is only one.
            costs (Sequence[str]): What was measured on it, all of it: names
                of ``MEASURED``. Defaults to latencies.

        Raises:
            UsageError: If there is none of that name, or if there are
                several and none is named; the message lists them.
        """
        devices = [
            name
            for name in self.devices
            if all(
                any(e.cost(cost, name) is not None for e in self.entries)
                for cost in costs
            )
        ]
        names = ' and '.join(costs)
        if not devices:
            missing = [
                cost
                for cost in costs
                if all(
                    e.cost(cost, name) is None
                    for e in self.entries
                    for name in self.devices
                )
            ]
            what = ' and '.join(missing) or f'device with {names}'
            raise UsageError(
                f'the table has no {what}: measure it with '
                f'{how_to_measure(costs)}, or give a budget of {COSTS[0]}'
            )
        if device is None and len(devices) == 1:
            return devices[0]
        if device not in devices:
            if all(cost in ('latency_ms', 'p90_ms') for cost in costs):
                names = 'latencies'
            verb = 'was' if names in costs else 'were'
            raise UsageError(
                f'device={device!r}: name one that {names} {verb} measured '
                f'on: {" or ".join(map(repr, devices))}'
            )
        return device

    def ranked_by(self, metric: str) -> 'QueryTable':
        """Return the same table ranked by another metric."""
        return self._of(self.entries, metric)

    def with_latencies(
        self, device: str, latencies: Mapping[Subnet, Latency]
    ) -> 'QueryTable':
        """Return the table with the latencies of a device added.

        Args:
            device (str): Such as ``'cpu-t2-b1'``. All that the table has under
                this name is replaced, also for subnets not measured again:
                figures of two runs are not comparable.
            latencies (Mapping): Latencies by subnet.

        Raises:
            UsageError: If one is of a subnet that is not in the table, or
                if the device has no name.
        """
        if not device:
            raise UsageError(f"device={device!r}: name it, say 'cpu-t2-b1'")
        unknown = set(latencies) - set(self._by_subnet)
        if unknown:
            raise UsageError(
                f'latency of {min(map(str, unknown))}: the table has no '
                'such subnet'
            )
        entries = []
        for entry in self.entries:
            figures = {
                k: v for k, v in entry.latency_ms.items() if k != device
            }
            if entry.subnet in latencies:
                figures[device] = latencies[entry.subnet]
            entries.append(replace(entry, latency_ms=figures))
        return self._of(entries, self.metric)

    def with_latencies_of(self, other: 'QueryTable') -> 'QueryTable':
        """Return the table with the figures that another one has.

        Args:
            other (QueryTable): Of the same weights. Its devices replace those
                of the same name; subnets count that cost the same in both.
        """
        table, own = self, {e.subnet: e.macs for e in self.entries}
        for device in other.devices:
            figures = {
                e.subnet: e.latency_ms[device]
                for e in other.entries
                if device in e.latency_ms and e.macs == own.get(e.subnet)
            }
            table = table.with_latencies(device, figures)
        return table

    def _of(self, entries: Sequence[TableEntry], metric: str) -> 'QueryTable':
        return QueryTable(
            entries,
            metric,
            self.task,
            self.full,
            self.num_images,
            self.views,
            self.cascades,
        )

    def score(self, entry: Choice) -> Optional[float]:
        """Value of the ranking metric; None if the entry has none."""
        if isinstance(entry, Cascade):
            return entry.accuracy if entry.metric == self.metric else None
        return self._scores.get(entry.subnet)

    def interval(self, entry: Choice) -> Optional[Tuple[float, float]]:
        """95 % interval of the score: how it varies between test sets.

        Of a share of right answers, it is Wilson's, see
        :func:`~.metric_interval`; of average precision, the percentiles of
        test sets that are drawn from the images of the tested one.

        Returns:
            tuple[float] or None: None of other metrics, and of tables of
            earlier releases.
        """
        score = self.score(entry)
        found = metric_interval(self.metric, score, self.num_images)
        if found is None and isinstance(entry, TableEntry):
            values = entry.resampled.get(self.metric)
            # Of values that are all equal, as 0, it would say nothing.
            if score is not None and values and min(values) < max(values):
                return drawn_interval(values)
        return found

    def is_shown_better(self, entry: TableEntry, other: TableEntry) -> bool:
        """Whether an entry is significantly better than another one.

        If both were tested on the same drawn test sets, it is if the 95 %
        interval of the difference lies above 0. Otherwise it is if its score
        lies above the interval of the other one, which is harder.

        Args:
            entry (TableEntry): One that has a score.
            other (TableEntry): Another one.

        Raises:
            UsageError: If the other one has neither.
        """
        pair = [e.resampled.get(self.metric) for e in (entry, other)]
        if pair[0] and pair[1]:
            return is_shown_better(pair[0], pair[1])
        interval = self.interval(other)
        if interval is None:
            raise UsageError(
                f'the table does not say how far {self.metric!r} may be off: '
                'an earlier release made it, or this metric has no intervals; '
                'build it again, or choose the best subnet'
            )
        return cast(float, self.score(entry)) > interval[1]

    @property
    def pareto(self) -> List[TableEntry]:
        """:meth:`pareto_by` MACs."""
        return self.pareto_by('macs')

    def pareto_by(
        self, cost: str, device: Optional[str] = None
    ) -> List[TableEntry]:
        """Entries that no other one beats in cost and score, cheapest first.

        One beats another if it is no worse in either and better in one;
        entries of equal cost and score are both in.

        Args:
            cost (str): One of ``COSTS``. Of ``'latency_ms'`` the median
                counts; of ``'images_per_second'`` more is better, and the
                fastest one comes first. Subnets that were not measured are
                left out.
            device (str, optional): Device that it was measured on; may be
                left out if there is only one. Defaults to None.

        Raises:
            UsageError: If there is no such cost or device.
        """
        if cost not in COSTS:
            raise UsageError(f'cost {cost!r}: use {" or ".join(COSTS)}')
        if cost in MEASURED:
            device = self.find_device(device, [cost])
        costs = self._costs(cost, device)
        found = pareto_front(
            self._scores,
            {s: less_is_better(cost, value) for s, value in costs.items()},
        )
        return [self._by_subnet[subnet] for subnet in found]

    def best(
        self,
        macs: Optional[float] = None,
        latency_ms: Optional[float] = None,
        params: Optional[float] = None,
        device: Optional[str] = None,
        prefer: str = 'best',
        p90_ms: Optional[float] = None,
        energy_mj: Optional[float] = None,
        images_per_second: Optional[float] = None,
    ) -> TableEntry:
        """Look up the best subnet within all given budgets.

        Among equally good subnets, it is the one with the least limited cost,
        then with the fewest MACs. So with a single budget it is in
        :meth:`pareto_by` that cost.

        Args:
            macs (float, optional): Maximum multiply-accumulates.
            latency_ms (float, optional): Maximum milliseconds, for the median
                of one batch on ``device``; subnets not measured there are
                left out.
            params (float, optional): Maximum number of parameters.
            device (str, optional): Device of what was measured; may be left
                out if there is only one. Defaults to None.
            prefer (str): ``'best'``, or ``'cheapest'``: the subnet of the
                least limited cost among those that the best one is not
                significantly better than, see :meth:`is_shown_better`.
                Defaults to ``'best'``.
            p90_ms (float, optional): Maximum milliseconds, for the 90th
                percentile of one batch.
            energy_mj (float, optional): Maximum millijoules of an image, in
                batches as the latency is measured.
            images_per_second (float, optional): Minimum throughput, at the
                best batch size of each subnet, whatever that of the latency
                is.

        Raises:
            UsageError: If a budget is not a positive number or is below the
                least of the table, which the message names, if there is no
                such device, or if ``'cheapest'`` is preferred and the table
                has no intervals.
        """
        if prefer not in PREFERENCES:
            raise UsageError(
                f'prefer={prefer!r}: use {" or ".join(map(repr, PREFERENCES))}'
            )
        given = dict(
            macs=macs,
            latency_ms=latency_ms,
            params=params,
            p90_ms=p90_ms,
            energy_mj=energy_mj,
            images_per_second=images_per_second,
        )
        budgets = {k: value for k, value in given.items() if value is not None}
        measured = [name for name in budgets if name in MEASURED]
        if measured or device is not None:
            device = self.find_device(device, measured or ['latency_ms'])
        names = dict.fromkeys((*budgets, 'macs', 'params'))
        costs = {name: self._costs(name, device) for name in names}
        best = self._by_subnet[best_within(self._scores, costs, budgets)]
        if prefer == 'best':
            return best
        no_worse = [
            subnet
            for subnet in all_within(self._scores, costs, budgets)
            if subnet == best.subnet
            or not self.is_shown_better(best, self._by_subnet[subnet])
        ]
        chosen = cheapest_of(no_worse, self._scores, costs, budgets)
        return self._by_subnet[chosen]

    def _costs(self, name: str, device: Optional[str]) -> Dict[Subnet, float]:
        """Costs of the subnets that can be chosen, where they are known."""
        costs = {
            s: self._by_subnet[s].cost(name, device) for s in self._scores
        }
        return {s: cost for s, cost in costs.items() if cost is not None}
