# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Query tables that are shown together, over one cost and by one metric."""

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple

from ..errors import UsageError
from ..query_table import QueryTable, TableEntry
from ..query_table.entry import COSTS, MEASURED


@dataclass(frozen=True)
class Axis:
    """What a figure shows of tables.

    Args:
        metric (str): That ranks all of them.
        cost (str): One of ``COSTS``.
        device (str, optional): Of what was measured. Defaults to None.
        notes (tuple[str]): What is missing, to be written below. Defaults to
            nothing.
    """

    metric: str
    cost: str
    device: Optional[str] = None
    notes: Tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """str: Of the axis of the cost."""
        label = dict(
            macs='multiply-accumulates',
            params='parameters',
            latency_ms='median latency in ms',
            p90_ms='90th percentile of the latency in ms',
            energy_mj='energy of an image in mJ',
            images_per_second='images per second at the best batch size',
        )[self.cost]
        return f'{label} ({self.device})' if self.cost in MEASURED else label

    def cost_of(self, entry: TableEntry) -> Optional[float]:
        """Cost of a subnet; None if it was not measured."""
        return entry.cost(self.cost, self.device)

    def front(self, table: QueryTable) -> List[TableEntry]:
        """The best subnets of a table (Pareto set), the cheapest first."""
        return table.pareto_by(self.cost, self.device)


def compared_tables(
    tables: Mapping[str, QueryTable],
    metric: Optional[str] = None,
    cost: str = 'macs',
    device: Optional[str] = None,
) -> Tuple[Dict[str, QueryTable], Axis]:
    """Rank tables by one metric, and find the cost that all of them have.

    Args:
        tables (Mapping): Tables by their labels.
        metric (str, optional): Defaults to the one that ranks all of them.
        cost (str): One of ``COSTS``. Defaults to ``'macs'``.
        device (str, optional): Of what was measured; may be left out if the
            tables have figures of one device alone. Defaults to None.

    Returns:
        tuple: The tables, ranked, and what to show of them.

    Raises:
        UsageError: If there is no table, if they have no metric in common,
            or if one has no such cost; names it.
    """
    if not tables:
        raise UsageError('no table was given: give one or more')
    if cost not in COSTS:
        raise UsageError(f'cost {cost!r}: use {" or ".join(COSTS)}')
    ranked = dict(tables)
    if metric is not None:
        ranked = {k: table.ranked_by(metric) for k, table in tables.items()}
    metrics = {table.metric for table in ranked.values()}
    if len(metrics) > 1:
        raise UsageError(
            f'the tables are ranked by {" and ".join(sorted(metrics))}: name '
            'one metric that all of them have'
        )
    if cost not in MEASURED:
        return ranked, Axis(metrics.pop(), cost)
    device = _common_device(ranked, cost, device)
    several = len(ranked) > 1
    notes = (
        _unmeasured(f'{label}: ' if several else '', table, cost, device)
        for label, table in ranked.items()
    )
    return ranked, Axis(
        metrics.pop(), cost, device, tuple(note for note in notes if note)
    )


def _common_device(
    tables: Mapping[str, QueryTable], cost: str, device: Optional[str]
) -> str:
    found = {}
    for label, table in tables.items():
        try:
            found[label] = table.find_device(device, [cost])
        except UsageError as error:
            raise UsageError(f'{label}: {error}') from error
        if not table.pareto_by(cost, found[label]):
            raise UsageError(
                f'{label}: no subnet has both {cost} and {table.metric}'
            )
    devices = sorted(set(found.values()))
    if len(devices) > 1:
        raise UsageError(
            f'{cost} of different devices ({" and ".join(devices)}) cannot '
            'be compared: measure all tables on one'
        )
    return devices[0]


def _unmeasured(
    prefix: str, table: QueryTable, cost: str, device: str
) -> Optional[str]:
    """Say how many subnets were not measured; None if all were."""
    entries = [e for e in table.entries if table.score(e) is not None]
    missing = sum(entry.cost(cost, device) is None for entry in entries)
    if not missing:
        return None
    return f'{prefix}{missing} of {len(entries)} subnets were not measured'
