# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the zoo says of a network: a record as data, and the page of all."""

import datetime
import hashlib
import json
import platform
from pathlib import Path
from typing import Any, Dict, List

import torch
from report_tables import markdown_table
from zoo_models import ZooModel

from mutualnet_mm.deploy import AdaptiveFile
from mutualnet_mm.files import atomic_write
from mutualnet_mm.query_table import QueryTable, load_table, save_table

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / 'zoo'
PAGE = ROOT / 'docs/zoo.md'
_HEAD = """# Networks that were trained here

Small networks on small data, each trained and tested by one command on a CPU.
They show what the method does and how its files look; none reproduces a
figure of the paper. Times are those of the clock, on a machine that had other
work as well. This page is written by `projects/zoo.py --page`, from the
records in `zoo/`: `zoo/NAME.json` has all that is below, and
`zoo/tables/NAME.json` is the query table.

Files of weights are not kept in the repository, but for the smallest ones,
`adaptive.pth` in [demo/](../demo/README.md). The command makes them again; the
same weights, and so the same sums, only on a machine that computes the same
bit for bit.
"""


def write_record(
    model: ZooModel, commands: List[str], out: Path, checkpoint: Path
) -> None:
    """Write ``zoo/NAME.json`` and ``zoo/tables/NAME.json``.

    Args:
        model (ZooModel): What was trained.
        commands (list[str]): By which.
        out (Path): Folder with ``adaptive.pth``.
        checkpoint (Path): File that the training wrote last.
    """
    adaptive = AdaptiveFile.load(out / 'adaptive.pth')
    kept = torch.load(checkpoint, map_location='cpu', weights_only=True)
    clock = kept['message_hub']['runtime_info']
    table = adaptive.table
    record = dict(
        name=model.name,
        task=table.task,
        config=f'configs/{model.config}',
        dataset=model.dataset,
        commands=commands,
        training_seconds=round(clock['training_seconds']),
        machine=f'{platform.machine()} CPU',
        threads=torch.get_num_threads(),
        date=datetime.date.today().isoformat(),
        versions=dict(python=platform.python_version(), **adaptive.versions),
        metric=table.metric,
        num_images=table.num_images,
        full=str(table.full),
        subnets=_subnets(table),
        files={
            path.name: _describe(path)
            for path in (out / 'adaptive.pth', checkpoint)
        },
    )
    save_table(table, RECORDS / 'tables' / f'{model.name}.json')
    with atomic_write(RECORDS / f'{model.name}.json') as file:
        file.write((json.dumps(record, indent=2) + '\n').encode())


def _subnets(table: QueryTable) -> List[Dict[str, Any]]:
    return [
        dict(
            subnet=str(entry.subnet),
            macs=entry.macs,
            params=entry.params,
            metrics=dict(entry.metrics),
            pareto=entry in table.pareto,
        )
        for entry in table.entries
    ]


def _describe(path: Path) -> Dict[str, Any]:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return dict(bytes=len(content), sha256=digest)


def page() -> str:
    """Write the page of all records, in Markdown."""
    parts = [_HEAD]
    for path in sorted(RECORDS.glob('*.json')):
        record = json.loads(path.read_text())
        table = load_table(RECORDS / 'tables' / path.name)
        parts.append(_section(record, table))
    return '\n'.join(parts)


def _section(record: Dict[str, Any], table: QueryTable) -> str:
    command, *steps = record['commands']
    steps = '\n'.join(steps)
    files = [['file', 'size', 'SHA-256']] + [
        [f'`{name}`', f'{about["bytes"] / 1e6:.2f} MB', f'`{about["sha256"]}`']
        for name, about in record['files'].items()
    ]
    versions = ', '.join(
        f'{name} {version}' for name, version in record['versions'].items()
    )
    minutes = record['training_seconds'] / 60
    threads = f'{record["threads"]} thread' + 's' * (record['threads'] > 1)
    return f"""## {record['name']}

[{record['config']}](../{record['config']}), on {record['dataset']}.

<!-- needs: minutes of training -->
```bash
{command}
# which runs
{steps}
```

{_results(table)}

Bold: the best of their cost. Trained in {minutes:.1f} minutes, {threads} of an
{record['machine']}, {record['date']}; {versions}.

{markdown_table(files)}
"""


def _results(table: QueryTable) -> str:
    """Rows of the table; the metric first that ranks it."""
    metrics = sorted(table.metrics, key=lambda name: name != table.metric)
    shown = [m for m in metrics if not m.startswith('running/')]
    shown = shown[:1] + [m for m in shown[1:] if m.endswith('_mAP')]
    intervals = ['95 % interval'] * any(map(table.interval, table.entries))
    lines = [['subnet', 'MMACs', 'parameters', *shown, *intervals]]
    for entry in table.entries:
        bold = '**' if entry in table.pareto else ''
        cells = [
            f'{bold}{entry.subnet}{bold}',
            f'{entry.macs / 1e6:.2f}',
            f'{entry.params:,}',
            *(_written(entry.metrics.get(name)) for name in shown),
        ]
        if intervals:
            low, high = table.interval(entry)
            cells.append(f'{_written(low)} to {_written(high)}')
        lines.append(cells)
    return markdown_table(lines)


def _written(value: Any) -> str:
    """Percent with one digit, shares with three; a dash for none."""
    if value is None:
        return '-'
    return f'{value:.1f}' if value > 1 else f'{value:.3f}'
