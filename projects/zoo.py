#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Train a network of the zoo, build its table and write its record.

Stopped at any time, the same command goes on where it was.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path
from typing import List

from zoo_models import MODELS, ZooModel
from zoo_records import PAGE, ROOT, page, write_record

from mutualnet_mm import UsageError
from mutualnet_mm.apis import load_config
from mutualnet_mm.cli import one_line_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('name', nargs='?', choices=MODELS, metavar='NAME')
    parser.add_argument(
        '--data',
        type=Path,
        help='folder of the data, where they cannot be made; needed by '
        + '; '.join(f'{m.name}: {m.data}' for m in MODELS.values() if m.data),
    )
    parser.add_argument(
        '--page',
        action='store_true',
        help='write docs/zoo.md again, of the records in zoo/',
    )
    args = parser.parse_args()
    if args.name is None and not args.page:
        parser.error(f'give --page, or one of {", ".join(MODELS)}')
    return args


def make(model: ZooModel, data: Path) -> None:
    """Prepare, train and build the table; write the record."""
    if model.data and data is None:
        raise UsageError(f'{model.name} needs --data: {model.data}')
    model.prepare(data)
    out = Path('work_dirs/zoo') / model.name
    config = f'configs/{model.config}'
    options = [f'{key}={value}' for key, value in model.options.items()]
    options = ['--cfg-options', *options] if options else []
    commands = [['tools/train.py', config, '--work-dir', str(out), *options]]
    _run([*commands[0], '--resume'])
    checkpoint = Path((out / 'last_checkpoint').read_text())
    if model.step is not None:
        grid = ['--step', str(model.step)]
    else:
        grid = ['--subnet', *load_config(config).test_cfg.subnets]
    table = ['tools/build_table.py', config, f'{out}/{checkpoint.name}']
    commands.append([*table, '--out', str(out), *grid, *options])
    _run(commands[1])
    script = f'projects/zoo.py {model.name}' + ' --data DATA' * bool(data)
    lines = [script, *map(shlex.join, commands)]
    write_record(model, [f'python {line}' for line in lines], out, checkpoint)


def _run(command: List[str]) -> None:
    """Run one of our tools; what it prints is its own matter."""
    done = subprocess.run([sys.executable, '-W', 'ignore', *command], cwd=ROOT)
    if done.returncode:
        raise UsageError(f'{command[0]} failed; what it says is above')


def main() -> None:
    args = parse_args()
    with one_line_errors():
        if args.name is not None:
            make(MODELS[args.name], args.data)
        PAGE.write_text(page())


if __name__ == '__main__':
    main()
