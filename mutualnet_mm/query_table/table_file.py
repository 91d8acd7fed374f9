# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The query table as ``table.json`` and ``table.csv``."""

import math
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Union

from ..checked_json import check_unchanged, checked_json, read_json
from ..errors import UsageError, is_count, is_number
from ..files import atomic_write, csv_text
from ..subnet import Subnet
from .cascades import MEASURE, Cascade
from .entry import Latency, TableEntry, is_positive
from .resampling import values_from_text, values_to_text
from .table import QueryTable

SCHEMA = 1
# Of files without a checksum.
_KEYS = {
    *('schema', 'task', 'metric', 'full', 'num_images', 'views'),
    *('entries', 'cascades'),
}
# A thousand widths at some sizes are the most that a grid can have.
_MOST_ENTRIES = 10**5
_MOST = 2**63 - 1  # of what is counted
_OPTIONAL = ('images_per_second', 'best_batch', 'energy_mj')  # of a latency


def save_table(table: QueryTable, path: Union[str, Path]) -> None:
    """Write ``table.json``, whose last key is a checksum of all others."""
    with atomic_write(path) as file:
        file.write(checked_json(table_to_dict(table)))


def load_table(path: Union[str, Path]) -> QueryTable:
    """Read ``table.json``.

    Raises:
        UsageError: If the file is missing, damaged, changed or not a table,
            or if a newer release wrote it.
    """
    name = f'table {str(path)!r}'
    for is_other, where in (
        (Path(path).is_dir(), 'in'),
        (Path(path).suffix == '.pth', 'beside'),
    ):
        if is_other:
            raise UsageError(f'{name}: name the table.json {where} it')
    try:
        content = read_json(path)
    except OSError as error:
        raise UsageError(f'{name} cannot be read: {error.strerror}') from error
    except ValueError as error:  # of JSON or of UTF-8
        raise UsageError(f'{name} is damaged or not JSON: {error}') from error
    # First, for it says what is wrong.
    table = table_from_dict(content, str(path))
    try:
        check_unchanged(content, _KEYS)
    except ValueError as error:
        raise UsageError(f'{name} is damaged: {error}') from error
    return table


def save_csv(table: QueryTable, path: Union[str, Path]) -> None:
    """Write a flat table for spreadsheets, a line for each subnet."""
    rows = [_flat(entry) for entry in table_to_dict(table)['entries']]
    with atomic_write(path) as file:
        file.write(csv_text(rows))


def table_to_dict(table: QueryTable) -> Dict[str, Any]:
    """Return plain containers, as in ``table.json``.

    ``pareto`` (by MACs, and inside ``latency_ms`` by each device's median) and
    ``interval`` are derived values for readers of the file;
    :func:`table_from_dict` derives them anew.
    """
    front = {entry.subnet for entry in table.pareto}
    fronts = {
        device: {e.subnet for e in table.pareto_by('latency_ms', device)}
        for device in table.devices
    }
    entries = []
    for entry in table.entries:
        interval = table.interval(entry)
        entries.append(
            dict(
                subnet=str(entry.subnet),
                width=float(entry.subnet.width),  # of stages, the mean
                resolution=entry.subnet.resolution,
                frames=entry.subnet.frames,
                macs=entry.macs,
                head_macs=entry.head_macs,
                params=entry.params,
                latency_ms={
                    device: dict(
                        median=latency.median,
                        p90=latency.p90,
                        pareto=entry.subnet in fronts[device],
                        **_optional_figures(latency),
                    )
                    for device, latency in entry.latency_ms.items()
                },
                metrics={k: _finite(v) for k, v in entry.metrics.items()},
                interval=None if interval is None else list(interval),
                pareto=entry.subnet in front,
            )
        )
        if entry.resampled:
            entries[-1]['resampled'] = {
                name: values_to_text(values)
                for name, values in entry.resampled.items()
            }
    return dict(
        schema=SCHEMA,
        task=table.task,
        metric=table.metric,
        full=str(table.full),
        num_images=table.num_images,
        views=table.views,
        entries=entries,
        cascades=None
        if table.cascades is None
        else [_cascade_to_dict(table, c) for c in table.cascades],
    )


def _optional_figures(latency: Latency) -> Dict[str, Any]:
    """Those that were measured; earlier releases read past them."""
    figures = {name: getattr(latency, name) for name in _OPTIONAL}
    return {name: x for name, x in figures.items() if x is not None}


def _cascade_to_dict(table: QueryTable, cascade: Cascade) -> Dict[str, Any]:
    interval = table.interval(cascade)
    return dict(
        stages=list(map(str, cascade.stages)),
        measure=MEASURE,
        threshold=cascade.threshold,
        mean_macs=cascade.mean_macs,
        macs=cascade.macs,
        metric=cascade.metric,
        accuracy=cascade.accuracy,
        interval=None if interval is None else list(interval),
    )


def table_from_dict(content: Any, name: str = 'table') -> QueryTable:
    """Inverse of :func:`table_to_dict`.

    Args:
        content: As read from a file.
        name (str): What error messages call it. Defaults to ``'table'``.

    Raises:
        UsageError: See :func:`load_table`.
    """
    schema = content.get('schema') if isinstance(content, dict) else None
    if schema is None or not is_count(schema) or 'entries' not in content:
        raise UsageError(
            f'{name} is not a query table: use one made by mutualnet table'
        )
    if schema > SCHEMA:
        raise UsageError(
            f'{name} has schema {schema}, this release reads up to {SCHEMA}: '
            'update mutualnet_mm'
        )
    try:
        return QueryTable(
            [_entry(record) for record in _get(content, 'entries', _is_list)],
            metric=_get(content, 'metric', _is_text),
            task=_get(content, 'task', _is_text),
            full=Subnet.parse(_get(content, 'full', _is_text)),
            num_images=_get(content, 'num_images', _is_optional_count),
            views=_get(content, 'views', _is_optional_count),
            # Tables from before there were cascades have no such key.
            cascades=_cascades(_get(content, 'cascades', _is_optional_list)),
        )
    except UsageError as error:
        raise UsageError(f'{name} is damaged: {error}') from error


def _entry(record: Any) -> TableEntry:
    if not isinstance(record, dict):
        raise UsageError(f'entry {_short(record)} is not an object')
    return TableEntry(
        subnet=Subnet.parse(_get(record, 'subnet', _is_text)),
        macs=_get(record, 'macs', _is_cost),
        head_macs=_get(record, 'head_macs', _is_optional_count),
        params=_get(record, 'params', _is_cost),
        metrics=_get(record, 'metrics', _are_metrics),
        latency_ms={
            device: Latency(
                figures['median'],
                figures['p90'],
                **{name: figures.get(name) for name in _OPTIONAL},
            )
            # Tables from before there were devices say None.
            for device, figures in (
                _get(record, 'latency_ms', _are_latencies) or {}
            ).items()
        },
        resampled={
            name: values_from_text(text)
            # Tables from before there were any have no such key.
            for name, text in (
                _get(record, 'resampled', _are_texts) or {}
            ).items()
        },
    )


def _cascades(records: Optional[list]) -> Optional[List[Cascade]]:
    return None if records is None else [_cascade(r) for r in records]


def _cascade(record: Any) -> Cascade:
    if not isinstance(record, dict):
        raise UsageError(f'cascade {_short(record)} is not an object')
    _get(record, 'measure', lambda value: value == MEASURE)
    first, second = _get(record, 'stages', _are_two)
    return Cascade(
        stages=(Subnet.parse(first), Subnet.parse(second)),
        threshold=_get(record, 'threshold', is_number),
        mean_macs=_get(record, 'mean_macs', is_number),
        macs=_get(record, 'macs', _is_cost),
        metric=_get(record, 'metric', _is_text),
        accuracy=_get(record, 'accuracy', is_number),
    )


def _get(record: dict, key: str, accept: Callable[[Any], bool]) -> Any:
    value = record.get(key)
    if not accept(value):
        place = f'{record["subnet"]}: ' if 'subnet' in record else ''
        raise UsageError(f'{place}{key}={_short(value)}')
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f'{text[:80]}...'


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_ENTRIES


def _is_cost(value: Any) -> bool:
    return is_count(value) and value <= _MOST


def _is_optional_list(value: Any) -> bool:
    return value is None or _is_list(value)


def _are_two(value: Any) -> bool:
    return _is_list(value) and list(map(type, value)) == [str, str]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_optional_count(value: Any) -> bool:
    return value is None or _is_cost(value)


def _is_optional_number(value: Any) -> bool:
    return value is None or is_number(value)


def _are_metrics(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(k, str) and _is_optional_number(v) for k, v in value.items()
    )


def _are_texts(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and all(isinstance(v, str) for item in value.items() for v in item)
    )


def _are_latencies(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and all(
            isinstance(device, str)
            and device
            and isinstance(figures, dict)
            and is_positive(figures.get('median'))
            and is_positive(figures.get('p90'))
            and _is_optional_count(figures.get('best_batch'))
            for device, figures in value.items()
        )
    )


def _finite(value: Optional[float]) -> Optional[float]:
    """None for what JSON cannot hold, such as mean precision of no object."""
    return value if value is not None and math.isfinite(value) else None


def _flat(entry: Dict[str, Any]) -> Dict[str, Any]:
    row = {}
    for key, value in entry.items():
        if key == 'metrics':
            metrics = value
        elif key == 'interval':
            row['interval_low'], row['interval_high'] = value or (None, None)
        elif key == 'resampled':
            continue  # numbers that no reader of a spreadsheet wants
        elif key == 'latency_ms':
            for device, figures in value.items():
                for name, figure in figures.items():
                    if name in _OPTIONAL:
                        row[f'{name}/{device}'] = figure
                    else:
                        row[f'latency_ms/{device}/{name}'] = figure
        else:
            row[key] = value
    row = dict(row, **metrics)
    return {k: _readable(value) for k, value in row.items()}


def _readable(value: Any) -> Any:
    """Without the digits that single precision makes up."""
    return float(f'{value:.7g}') if isinstance(value, float) else value
