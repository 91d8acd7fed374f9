# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Accuracy against multiply-accumulates."""

from collections import defaultdict
from pathlib import Path
from typing import Dict, Mapping, Optional, Sequence, Tuple, Union

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from ..errors import ConfigError
from ..evaluation import QueryTable, TableEntry
from ..subnet import Subnet

Points = Mapping[Subnet, Tuple[float, float]]
"""``{subnet: (multiply-accumulates, accuracy)}``."""


def plot_curve(
    points: Points,
    metric: str,
    out: Union[str, Path],
    title: str = '',
) -> None:
    """Draw one network's accuracy-MACs curve as a PNG.

    Args:
        points (Mapping): ``{subnet: (multiply-accumulates, accuracy)}``; one
            colour for each resolution, each point named by its width.
        metric (str): Label of the accuracy axis.
        out (str or Path): File to write.
        title (str): Defaults to none.
    """
    figure, axes = _new_figure()
    _draw_resolutions(axes, points)
    _name_widths(axes, points)
    axes.set(ylabel=metric, title=title)
    axes.legend()
    figure.savefig(out, dpi=150)


def plot_tables(
    tables: Mapping[str, QueryTable],
    out: Union[str, Path],
    metric: Optional[str] = None,
    log: bool = False,
) -> None:
    """Draw the curves of query tables as a PNG, as the paper's Fig. 7 to 10.

    A single table has a colour for each resolution and a dashed line through
    its best subnets (Pareto set), named by their widths, with the 95 %
    interval of their accuracy behind. Of several, each has a colour and a line
    through its best, the others are faint.

    Args:
        tables (Mapping): Tables by their labels in the legend.
        out (str or Path): File to write.
        metric (str, optional): To show instead of the one that ranks the
            tables. Defaults to None.
        log (bool): Whether the axis of MACs is logarithmic. Defaults to
            False.

    Raises:
        ConfigError: If the tables have no metric in common, or if ``out``
            cannot be written.
    """
    if metric is not None:
        tables = {k: table.ranked_by(metric) for k, table in tables.items()}
    metrics = {table.metric for table in tables.values()}
    if len(metrics) > 1:
        raise ConfigError(
            f'the tables are ranked by {" and ".join(sorted(metrics))}: name '
            'one metric that all of them have'
        )
    figure, axes = _new_figure(log)
    if len(tables) == 1:
        _draw_table(axes, *tables.values())
        axes.set(title=next(iter(tables)))
        axes.legend()
    else:
        for label, table in tables.items():
            _draw_front(axes, label, table)
        axes.legend()
    axes.set(ylabel=metrics.pop())
    try:
        figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:  # ValueError: no known format
        raise ConfigError(
            f'picture {str(out)!r} cannot be written: {error}'
        ) from error


def _new_figure(log: bool = False) -> Tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.add_subplot()
    axes.set(xlabel='multiply-accumulates')
    if log:
        axes.set_xscale('log')
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    # 1.5 G, 150 M: whatever fits the network.
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.grid(alpha=0.3)
    return figure, axes


def _draw_resolutions(axes: Axes, points: Points) -> None:
    lines: Dict[int, list] = defaultdict(list)
    for subnet, point in points.items():
        lines[subnet.resolution].append(point)
    for resolution in sorted(lines, reverse=True):
        xy = zip(*sorted(lines[resolution]))
        axes.plot(*xy, 'o-', ms=4, label=f'{resolution} px')


def _draw_table(axes: Axes, table: QueryTable) -> None:
    _draw_resolutions(axes, _points(table, table.entries))
    front = _points(table, table.pareto)
    macs = [point[0] for point in front.values()]
    axes.plot(*zip(*front.values()), 'k--', lw=0.8, label='the best')
    _name_widths(axes, front)
    intervals = [table.interval(entry) for entry in table.pareto]
    if None not in intervals:
        low, high = zip(*intervals)
        axes.fill_between(macs, low, high, color='k', alpha=0.07, lw=0)


def _name_widths(axes: Axes, points: Points) -> None:
    for subnet, point in points.items():
        axes.annotate(
            f'{subnet.width:g}x',
            point,
            xytext=(4, 4),
            textcoords='offset points',
            fontsize='small',
        )


def _draw_front(axes: Axes, label: str, table: QueryTable) -> None:
    front = _points(table, table.pareto).values()
    (line,) = axes.plot(*zip(*front), 'o-', ms=4, label=label)
    everything = _points(table, table.entries).values()
    axes.plot(*zip(*everything), '.', color=line.get_color(), alpha=0.2)


def _points(table: QueryTable, entries: Sequence[TableEntry]) -> Points:
    points = {}
    for entry in entries:
        score = table.score(entry)
        if score is not None:
            points[entry.subnet] = (float(entry.macs), score)
    return points
