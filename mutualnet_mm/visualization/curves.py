# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Accuracy against multiply-accumulates, parameters or what was measured."""

from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from ..errors import UsageError
from ..files import atomic_write
from ..query_table import Cascade, QueryTable, TableEntry, cascade_front
from ..subnet import Subnet
from .compared import Axis, compared_tables
from .names import name_points
from .palette import legend_beside, line_style

Points = Mapping[Subnet, Tuple[float, float]]
"""``{subnet: (cost, accuracy)}``."""

#: How a video subnet is drawn: a line where only one dimension changes.
REDUCED: Dict[str, Tuple[str, Dict[str, Any]]] = dict(
    nothing=('full network', dict(color='k', marker='*', ls='')),
    width=('reduced width', dict(line_style(0), ls='-')),
    resolution=('reduced resolution', dict(line_style(1), ls='-')),
    frames=('reduced frames', dict(line_style(2), ls='-')),
    several=('several reduced', dict(line_style(3), ls='')),
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
    cost: str = 'macs',
    device: Optional[str] = None,
) -> None:
    """Draw the curves of query tables as a PNG, like the paper's Fig. 7 to 10.

    See :func:`draw_tables` for what is drawn, and for the other arguments.

    Args:
        tables (Mapping): Tables by their labels in the legend.
        out (str or Path): File to write, ``.png``, ``.pdf`` or another format
            of Matplotlib's; a PNG if it does not end in one. ``.html`` is a
            page to move in, see :func:`~.page.table_page`.
        metric (str, optional): As there.
        log (bool): As there.
        cost (str): As there.
        device (str, optional): As there.

    Raises:
        UsageError: As there, or if ``out`` cannot be written.
    """
    kind = Path(out).suffix[1:].lower() or 'png'
    if kind in ('html', 'htm'):
        from .page import table_page  # plotly is optional

        content = table_page(tables, metric, log, cost, device).encode()
        with atomic_write(out) as file:
            file.write(content)
        return
    figure = draw_tables(tables, metric, log, cost, device)
    if kind not in figure.canvas.get_supported_filetypes():
        raise UsageError(
            f'picture {str(out)!r} cannot be written: name a .png, .pdf or '
            '.html file'
        )
    with atomic_write(out) as file:
        figure.savefig(file, dpi=150, format=kind)


def draw_tables(
    tables: Mapping[str, QueryTable],
    metric: Optional[str] = None,
    log: bool = False,
    cost: str = 'macs',
    device: Optional[str] = None,
) -> Figure:
    """Draw the curves of query tables.

    A single table has a colour for each resolution and a dashed line through
    its best subnets (Pareto set), named by their widths, with the 95 %
    interval of their accuracy in grey. For video the colour says what was
    reduced, as in Fig. 18, and names are those of whole subnets, as many as
    there is room for. If there are several tables, each has a colour and a
    line through its best subnets; the others are faint.

    Where a table has cascades, a line shows what they reach at a mean cost; of
    a single table, dots show what the same ones cost in the worst case. Their
    costs are multiply-accumulates: over another cost they are not drawn.

    Args:
        tables (Mapping): Tables by their labels in the legend.
        metric (str, optional): Metric to show instead of the one that ranks
            the tables. Defaults to None.
        log (bool): Whether the axis of the cost is logarithmic. Defaults to
            False.
        cost (str): What the axis shows: ``'macs'``, ``'params'``, or what was
            measured, such as ``'latency_ms'``, see ``COSTS``. A line below it
            counts subnets that were not measured, which are left out. Defaults
            to ``'macs'``.
        device (str, optional): Measured on it; may be left out if a table
            has figures of one device alone. Defaults to None.

    Raises:
        UsageError: If there is no table, if the tables have no metric in
            common, or if one has no such figure of the device.
    """
    tables, axis = compared_tables(tables, metric, cost, device)
    figure, axes = _new_figure(axis, log)
    if len(tables) == 1:
        ((title, table),) = tables.items()
        named = _draw_table(axes, table, axis)
        axes.set(title=title)
        legend_beside(axes)
        _name_subnets(figure, named, _points(table, table.entries, axis))
    else:
        for number, (label, table) in enumerate(tables.items()):
            _draw_front(axes, label, table, axis, line_style(number))
        legend_beside(axes)
    return figure


def figure_pixels(figure: Figure, dpi: int = 100) -> np.ndarray:
    """Return a figure as an image.

    Args:
        figure (Figure): To draw.
        dpi (int): Pixels for each inch. Defaults to 100.

    Returns:
        np.ndarray: (H, W, 3), RGB of uint8.
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _new_figure(axis: Axis, log: bool) -> Tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, 4), layout='constrained')
    axes = figure.add_subplot()
    notes = [axis.label, *axis.notes]
    axes.set(xlabel='\n'.join(notes), ylabel=axis.metric)
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
        for number, resolution in enumerate(sorted(lines, reverse=True)):
            xy = zip(*sorted(lines[resolution]))
            axes.plot(*xy, label=f'{resolution} px', **line_style(number))
        return
    for subnet, point in points.items():
        lines[reduced_dimension(subnet, full)].append(point)
    for reduced, (label, style) in REDUCED.items():
        if lines[reduced]:
            # A line leads to the full network, which stays on top.
            ends = lines['nothing'] if style['ls'] else []
            axes.plot(
                *zip(*sorted(lines[reduced] + ends)),
                **dict(style, markersize=4),
                label=label,
                zorder=2.2 if reduced == 'nothing' else 2,
            )


def _draw_table(axes: Axes, table: QueryTable, axis: Axis) -> Points:
    """Draw all points and the front, which is returned."""
    _draw_points(axes, _points(table, table.entries, axis), table.full)
    best = axis.front(table)
    front = _points(table, best, axis)
    costs = [point[0] for point in front.values()]
    axes.plot(*zip(*front.values()), 'k--', lw=0.8, label='the best')
    label = 'cascades, mean cost'
    cascades = _draw_cascades(axes, table, axis, 'k-', label, lw=1.2)
    if cascades:
        worst = [(cascade.macs, cascade.accuracy) for cascade in cascades]
        label = 'the same, worst case'
        axes.plot(*zip(*worst), 'k.', ms=3, alpha=0.5, label=label)
    _draw_intervals(axes, costs, [table.interval(entry) for entry in best])
    return front


def _draw_intervals(
    axes: Axes,
    costs: Sequence[float],
    intervals: Sequence[Optional[Tuple[float, float]]],
) -> None:
    """Draw the 95 % intervals of the front, where there are any."""
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(intervals):
        return
    low, high = zip(*known)
    style: Any = dict(color='k', alpha=0.1, label='95 % interval')
    if len(costs) == 1:  # has no area
        axes.vlines(costs, low, high, lw=6, **style)
    else:
        axes.fill_between(costs, low, high, lw=0, **style)


def _draw_cascades(
    axes: Axes,
    table: QueryTable,
    axis: Axis,
    style: str,
    label: str,
    **settings: Any,
) -> List[Cascade]:
    """Draw the front by mean cost, and return the cascades in it.

    Without any, it is that of the subnets, and nothing is drawn.
    """
    front = cascade_front(table) if axis.cost == 'macs' else []
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


def _draw_front(
    axes: Axes,
    label: str,
    table: QueryTable,
    axis: Axis,
    style: Dict[str, Any],
) -> None:
    front = _points(table, axis.front(table), axis).values()
    axes.plot(*zip(*front), **style, label=label)
    colour = style['color']
    _draw_cascades(axes, table, axis, '--', f'{label}, cascades', color=colour)
    everything = _points(table, table.entries, axis).values()
    axes.plot(*zip(*everything), '.', color=colour, alpha=0.2)


def _points(
    table: QueryTable, entries: Sequence[TableEntry], axis: Axis
) -> Points:
    points = {}
    for entry in entries:
        score, cost = table.score(entry), axis.cost_of(entry)
        if score is not None and cost is not None:
            points[entry.subnet] = (float(cost), score)
    return points
