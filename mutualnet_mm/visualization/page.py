# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Query tables as a page to move in."""

from collections import defaultdict
from html import escape
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..errors import UsageError
from ..query_table import (
    Cascade,
    Latency,
    QueryTable,
    TableEntry,
    cascade_front,
)
from ..query_table.front_steps import format_macs
from .compared import Axis, compared_tables
from .curves import REDUCED, reduced_dimension
from .palette import line_style

# Plotly's names of Matplotlib's marks.
_SYMBOLS = {
    'o': 'circle',
    's': 'square',
    '^': 'triangle-up',
    'D': 'diamond',
    'v': 'triangle-down',
    'P': 'cross',
    'X': 'x',
    '*': 'star',
}
_FAINT = 0.35
_BEST = 'the best'


def table_page(
    tables: Mapping[str, QueryTable],
    metric: Optional[str] = None,
    log: bool = False,
    cost: str = 'macs',
    device: Optional[str] = None,
) -> str:
    """Draw query tables as a page of HTML that needs no network.

    All subnets are points, the best ones (Pareto set) are joined by a line,
    and so are cascades at their mean cost. Over a point stand its width,
    resolution and frames, its multiply-accumulates, parameters and latencies,
    all metrics, and the 95 % interval of the one that is shown.

    See :func:`~.curves.draw_tables` for the arguments and errors.

    Returns:
        str: The page, with Plotly's program of some megabytes in it.

    Raises:
        UsageError: As there, or if Plotly is missing.
    """
    tables, axis = compared_tables(tables, metric, cost, device)
    try:
        from plotly import graph_objects
    except ImportError as error:
        raise UsageError(
            'pages are made by plotly, which is missing: '
            'pip install "mutualnet_mm[analysis]"'
        ) from error
    figure = graph_objects.Figure()
    for number, (label, table) in enumerate(tables.items()):
        style = line_style(number)
        if len(tables) == 1:
            _add_groups(figure, table, axis)
            name, style = _BEST, dict(style, color='k')
        else:
            name = label
            best = axis.front(table)
            _add_points(
                figure,
                table,
                axis,
                [entry for entry in table.entries if entry not in best],
                name=f'{escape(label)}, others',
                marker=_marker(style, opacity=_FAINT, size=6),
            )
        marker = _marker(style)
        _add_front(figure, table, axis, name, marker)
        _add_cascades(figure, table, axis, name, marker['color'])
    title = ', '.join(tables)
    figure.update_layout(
        title=escape(title),
        template='plotly_white',
        hoverlabel=dict(align='left'),
        autosize=True,
        xaxis=dict(
            title='<br>'.join(map(escape, [axis.label, *axis.notes])),
            tickformat='~s',
            # At 1, 2 and 5, as in the picture: more would overlap.
            **(dict(type='log', dtick='D2') if log else {}),
        ),
        yaxis=dict(title=escape(axis.metric)),
    )
    page = figure.to_html(
        include_plotlyjs=True,
        div_id='tables',
        default_height='90vh',
        config=dict(responsive=True),
    )
    return page.replace('<head>', f'<head><title>{escape(title)}</title>', 1)


def _add_groups(figure: Any, table: QueryTable, axis: Axis) -> None:
    """Add the subnets of a table, coloured as in the picture of it."""
    groups: Dict[Any, List[TableEntry]] = defaultdict(list)
    if table.full.frames is None:
        for entry in table.entries:
            groups[entry.subnet.resolution].append(entry)
        for number, resolution in enumerate(sorted(groups, reverse=True)):
            _add_points(
                figure,
                table,
                axis,
                groups[resolution],
                name=f'{resolution} px',
                marker=_marker(line_style(number)),
            )
        return
    for entry in table.entries:
        groups[reduced_dimension(entry.subnet, table.full)].append(entry)
    for reduced, (name, style) in REDUCED.items():
        if groups[reduced]:
            _add_points(
                figure,
                table,
                axis,
                groups[reduced],
                name=name,
                marker=_marker(style),
            )


def _add_points(
    figure: Any,
    table: QueryTable,
    axis: Axis,
    entries: Sequence[TableEntry],
    **settings: Any,
) -> None:
    shown = [
        entry
        for entry in entries
        if table.score(entry) is not None and axis.cost_of(entry) is not None
    ]
    figure.add_scatter(
        x=[axis.cost_of(entry) for entry in shown],
        y=[table.score(entry) for entry in shown],
        text=[_describe(table, entry, axis) for entry in shown],
        hovertemplate='%{text}<extra></extra>',
        **dict(dict(mode='markers'), **settings),
    )


def _add_front(
    figure: Any,
    table: QueryTable,
    axis: Axis,
    name: str,
    marker: Dict[str, Any],
) -> None:
    front = axis.front(table)
    intervals = [table.interval(entry) for entry in front]
    bars: Dict[str, Any] = {}
    if None not in intervals:
        scores = [table.score(entry) for entry in front]
        above = [i[1] - s for i, s in zip(intervals, scores)]  # type: ignore
        below = [s - i[0] for i, s in zip(intervals, scores)]  # type: ignore
        bars.update(
            error_y=dict(
                type='data',
                array=above,
                arrayminus=below,
                symmetric=False,
                thickness=0.7,
                color=marker['color'],
            )
        )
    _add_points(
        figure,
        table,
        axis,
        front,
        name=f'{escape(name)}{", 95 % interval" if bars else ""}',
        mode='lines+markers',
        line=dict(color=marker['color'], width=1, dash='dash'),
        marker=dict(marker, symbol=f'{marker["symbol"]}-open', size=11),
        **bars,
    )


def _add_cascades(
    figure: Any, table: QueryTable, axis: Axis, name: str, colour: str
) -> None:
    choices = cascade_front(table) if axis.cost == 'macs' else []
    if not any(isinstance(choice, Cascade) for choice in choices):
        return
    prefix = '' if name == _BEST else f'{escape(name)}, '
    figure.add_scatter(
        x=[choice.mean_macs for choice in choices],
        y=[table.score(choice) for choice in choices],
        text=[
            _describe_cascade(table, choice)
            if isinstance(choice, Cascade)
            else _describe(table, choice, axis)
            for choice in choices
        ],
        hovertemplate='%{text}<extra></extra>',
        mode='lines+markers',
        name=f'{prefix}cascades, mean cost',
        line=dict(color=colour, width=2),
        marker=dict(color=colour, size=5),
    )


def _marker(style: Mapping[str, Any], **settings: Any) -> Dict[str, Any]:
    """Plotly's settings for a style of Matplotlib's."""
    colour = '#000000' if style['color'] == 'k' else style['color']
    symbol = _SYMBOLS[style['marker']]
    return dict(dict(color=colour, symbol=symbol, size=8), **settings)


def _describe(table: QueryTable, entry: TableEntry, axis: Axis) -> str:
    """What stands over the point of a subnet."""
    subnet = entry.subnet
    size = f'width {subnet.width:g}, resolution {subnet.resolution}'
    if subnet.frames is not None:
        size += f', {subnet.frames} frames'
    macs = f'{format_macs(entry.macs)} multiply-accumulates'
    if entry.head_macs is not None:
        macs += f', and {format_macs(entry.head_macs)} of the heads'
    if table.views is not None:
        macs += ' for each view'
    lines = [
        f'<b>{subnet}</b>',
        size,
        macs,
        f'{format_macs(entry.params)} parameters',
    ]
    for device in table.devices or ['latency']:
        found = entry.latency_ms.get(device)
        lines.append(
            f'{escape(device)}: not measured'
            if found is None
            else f'{escape(device)}: {found.median:.4g} ms, 90 % below '
            f'{found.p90:.4g}{_describe_more(found)}'
        )
    for name, value in entry.metrics.items():
        shown = 'none' if value is None else f'{value:.4g}'
        if name == axis.metric:
            shown += _describe_interval(table, entry)
        lines.append(f'{escape(name)}: {shown}')
    return '<br>'.join(lines)


def _describe_more(found: Latency) -> str:
    """What was measured beside the latency."""
    told = ''
    if found.images_per_second is not None:
        told += (
            f', {found.images_per_second:.4g} images per second in batches '
            f'of {found.best_batch}'
        )
    if found.energy_mj is not None:
        told += f', {found.energy_mj:.4g} mJ an image'
    return told


def _describe_cascade(table: QueryTable, cascade: Cascade) -> str:
    first, second = cascade.stages
    return '<br>'.join(
        (
            f'<b>cascade of {first} and {second}</b>',
            f'goes on below a confidence of {cascade.threshold:.3g}',
            f'{format_macs(cascade.mean_macs)} multiply-accumulates on '
            f'average, {format_macs(cascade.macs)} in the worst case',
            f'{escape(cascade.metric)}: {cascade.accuracy:.4g}'
            f'{_describe_interval(table, cascade)}',
        )
    )


def _describe_interval(table: QueryTable, choice: Any) -> str:
    interval = table.interval(choice)
    if interval is None:
        return ''
    return f' (95 %: {interval[0]:.4g} to {interval[1]:.4g})'
