# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Accuracy against multiply-accumulates."""

from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from ..errors import UsageError
from ..files import atomic_write
from ..query_table import Cascade, QueryTable, TableEntry, cascade_front
from ..subnet import Subnet
from .names import name_points

Points = Mapping[Subnet, Tuple[float, float]]
"""``{subnet: (multiply-accumulates, accuracy)}``."""

# How a video subnet is drawn: a line where only one dimension changes.
_REDUCED = dict(
    nothing=('full network', 'kD'),
    width=('reduced width', 'C0o-'),
    resolution=('reduced resolution', 'C1o-'),
    frames=('reduced frames', 'C2o-'),
    several=('several reduced', 'C4o'),
)


def reduced_dimension(subnet: Subnet, full: Subnet) -> str:
    """Tell what ``subnet`` has less of than the full network (Fig. 18).

    Returns:
        str: ``'nothing'``, ``'width'``, ``'resolution'``, ``'frames'`` or,
        for more than one, ``'several'``.
    """
    reduced = [
        name
        for name in ('width', 'resolution', 'frames')
        if getattr(subnet, name) != getattr(full, name)
    ]
    return 'several' if len(reduced) > 1 else ''.join(reduced) or 'nothing'


def plot_tables(
    tables: Mapping[str, QueryTable],
    out: Union[str, Path],
    metric: Optional[str] = None,
    log: bool = False,
) -> None:
    """Draw the curves of query tables as a PNG, like the paper's Fig. 7 to 10.

    A single table has a colour for each resolution and a dashed line through
    its best subnets (Pareto set), named by their widths, with the 95 %
    interval of their accuracy in grey. For video the colour says what was
    reduced, as in Fig. 18, and names are those of whole subnets, as many as
    there is room for. If there are several tables, each has a colour and a
    line through its best subnets; the others are faint.

    Where a table has cascades, a line shows what they reach at a mean cost; of
    a single table, dots show what the same ones cost in the worst case.

    Args:
        tables (Mapping): Tables by their labels in the legend.
        out (str or Path): File to write, ``.png``, ``.pdf`` or another format
            of Matplotlib's; a PNG if it does not end in one.
        metric (str, optional): Metric to show instead of the one that ranks
            the tables. Defaults to None.
        log (bool): Whether the axis of MACs is logarithmic. Defaults to
            False.

    Raises:
        UsageError: If there is no table, if the tables have no metric in
            common, or if ``out`` cannot be written.
    """
    if not tables:
        raise UsageError('no table was given: give one or more')
    if metric is not None:
        tables = {k: table.ranked_by(metric) for k, table in tables.items()}
    metrics = {table.metric for table in tables.values()}
    if len(metrics) > 1:
        raise UsageError(
            f'the tables are ranked by {" and ".join(sorted(metrics))}: name '
            'one metric that all of them have'
        )
    figure, axes = _new_figure(log)
    axes.set(ylabel=metrics.pop())
    if len(tables) == 1:
        ((title, table),) = tables.items()
        named = _draw_table(axes, table)
        axes.set(title=title)
        axes.legend(loc='lower right')
        _name_subnets(figure, named, _points(table, table.entries))
    else:
        for label, table in tables.items():
            _draw_front(axes, label, table)
        axes.legend()
    kind = Path(out).suffix[1:] or 'png'
    if kind.lower() not in figure.canvas.get_supported_filetypes():
        raise UsageError(
            f'picture {str(out)!r} cannot be written: name a .png or .pdf file'
        )
    with atomic_write(out) as file:
        figure.savefig(file, dpi=150, format=kind)


def _new_figure(log: bool) -> Tuple[Figure, Axes]:
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
    axes.margins(y=0.1)  # room for names
    return figure, axes


def _draw_points(axes: Axes, points: Points, full: Subnet) -> None:
    lines: Dict[Any, list] = defaultdict(list)
    if full.frames is None:
        for subnet, point in points.items():
            lines[subnet.resolution].append(point)
        for resolution in sorted(lines, reverse=True):
            xy = zip(*sorted(lines[resolution]))
            axes.plot(*xy, 'o-', ms=4, label=f'{resolution} px')
        return
    for subnet, point in points.items():
        lines[reduced_dimension(subnet, full)].append(point)
    for reduced, (label, style) in _REDUCED.items():
        if lines[reduced]:
            # A line leads to the full network, which stays on top.
            ends = lines['nothing'] if '-' in style else []
            axes.plot(
                *zip(*sorted(lines[reduced] + ends)),
                style,
                ms=4,
                label=label,
                zorder=2.2 if reduced == 'nothing' else 2,
            )


def _draw_table(axes: Axes, table: QueryTable) -> Points:
    """Draw all points and the front, which is returned."""
    _draw_points(axes, _points(table, table.entries), table.full)
    front = _points(table, table.pareto)
    macs = [point[0] for point in front.values()]
    axes.plot(*zip(*front.values()), 'k--', lw=0.8, label='the best')
    label = 'cascades, mean cost'
    cascades = _draw_cascades(axes, table, 'k-', label, lw=1.2)
    if cascades:
        worst = [(cascade.macs, cascade.accuracy) for cascade in cascades]
        label = 'the same, worst case'
        axes.plot(*zip(*worst), 'k.', ms=3, alpha=0.5, label=label)
    intervals = [table.interval(entry) for entry in table.pareto]
    if None not in intervals:
        low, high = zip(*intervals)
        axes.fill_between(macs, low, high, color='k', alpha=0.07, lw=0)
    return front


def _draw_cascades(
    axes: Axes, table: QueryTable, style: str, label: str, **settings: Any
) -> List[Cascade]:
    """Draw the front by mean cost, and return the cascades in it.

    Without any, it is that of the subnets, and nothing is drawn.
    """
    front = cascade_front(table)
    found = [choice for choice in front if isinstance(choice, Cascade)]
    if found:
        points = [(choice.mean_macs, table.score(choice)) for choice in front]
        axes.plot(*zip(*points), style, label=label, **settings)
    return found


def _name_subnets(figure: Figure, named: Points, points: Points) -> None:
    """Name image subnets by their width, since colours tell the rest."""
    # The best first.
    order = sorted(named.items(), key=lambda item: -item[1][1])
    names = [
        (str(subnet) if subnet.frames else f'{subnet.width:g}x', point)
        for subnet, point in order
    ]
    name_points(figure, names, points.values())


def _draw_front(axes: Axes, label: str, table: QueryTable) -> None:
    front = _points(table, table.pareto).values()
    (line,) = axes.plot(*zip(*front), 'o-', ms=4, label=label)
    colour = line.get_color()
    _draw_cascades(axes, table, '--', f'{label}, cascades', color=colour)
    everything = _points(table, table.entries).values()
    axes.plot(*zip(*everything), '.', color=colour, alpha=0.2)


def _points(table: QueryTable, entries: Sequence[TableEntry]) -> Points:
    points = {}
    for entry in entries:
        score = table.score(entry)
        if score is not None:
            points[entry.subnet] = (float(entry.macs), score)
    return points
