# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Query tables in a terminal."""

from typing import Dict, Optional, Tuple

from rich.console import Console
from rich.table import Table

from ..query_table import QueryTable, TableEntry

_MANY = 16  # rows; of more, only those that are chosen are of interest
_WIDTH = 79


def print_table(
    table: QueryTable,
    columns: Optional[Dict[str, Tuple[str, str]]] = None,
    title: Optional[str] = None,
) -> None:
    """Print a query table, the widest subnets first, the best ones marked.

    Of more than 16 subnets, only the best ones: no other has a higher score
    at their cost or less.

    Args:
        table (QueryTable): Of any task.
        columns (dict[str, tuple], optional): By the name of a column, the
            metric that it shows and its format. Defaults to the metric that
            ranks the subnets.
        title (str, optional): Of the printed table. Defaults to none.
    """
    columns = columns or {table.metric: (table.metric, '.4g')}
    form = dict(columns.values()).get(table.metric, '.4g')
    is_long = len(table.entries) > _MANY
    best = table.pareto
    caption = '* the best of its cost'
    if is_long:
        caption = f'the best of their cost, of {len(table.entries)} subnets'
    shown = Table(title=title, caption=caption)
    has_intervals = any(map(table.interval, table.entries))
    names = ['subnet', 'MMACs', 'parameters', *columns]
    ranks = next((n for n, c in columns.items() if c[0] == table.metric), '')
    interval = f'95 % of {ranks}' if len(columns) > 1 else '95 % interval'
    for name in names + [interval] * has_intervals:
        shown.add_column(name, justify='right')
    for entry in table.entries:
        if is_long and entry not in best:
            continue
        is_marked = not is_long and entry in best
        shown.add_row(
            f'{"* " if is_marked else ""}{entry.subnet}',
            f'{entry.macs / 1e6:.2f}',
            f'{entry.params:,}',
            *(
                _written(entry.metrics.get(metric), chosen)
                for metric, chosen in columns.values()
            ),
            *([_interval(table, entry, form)] * has_intervals),
        )
    Console(width=_WIDTH).print(shown)


def _written(value: Optional[float], form: str) -> str:
    """Write a metric; a dash where the evaluator gave none."""
    return '-' if value is None else f'{value:{form}}'


def _interval(table: QueryTable, entry: TableEntry, form: str) -> str:
    found = table.interval(entry)
    return f'{found[0]:{form}} to {found[1]:{form}}' if found else '-'
