#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Try which stock configs of a project can be made adaptive.

One config of each combination of parts, adaptive and as it is, each in a
process of its own, on generated data. Interrupted, the same command goes on
where it stopped; what other versions found is found anew. Leaves
DIR/PROJECT.jsonl and DIR/PROJECT.md, and in a clone writes
docs/coverage/PROJECT.md once all configs of the project were tried.
"""

import math
import sys
from datetime import date
from importlib import import_module
from pathlib import Path

from mutualnet_mm import __version__
from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.config.stock import config_folder
from mutualnet_mm.errors import UsageError, check_count
from mutualnet_mm.files import atomic_write, make_folder
from mutualnet_mm.progress_bars import track
from mutualnet_mm.survey import (
    DIVISORS,
    Record,
    add_record,
    choose,
    combination,
    coverage_page,
    read_records,
    reasons,
    size,
    stock_configs,
    survey,
)

PAGES = Path(__file__).resolve().parents[1] / 'docs/coverage'


def parse_args():
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--project',
        required=True,
        choices=sorted(DIVISORS),
        help='whose configs',
    )
    parser.add_argument(
        '--filter', default='', metavar='TEXT', help='part of their names'
    )
    parser.add_argument(
        '--limit', type=int, metavar='N', help='try N of them, evenly spread'
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        help='processes at the same time, default: %(default)s',
    )
    parser.add_argument(
        '--timeout',
        type=float,
        default=300,
        metavar='S',
        help='seconds of a process, default: %(default)s',
    )
    parser.add_argument(
        '--out',
        default='work_dirs/survey',
        metavar='DIR',
        help='folder of results, data and logs, default: %(default)s',
    )
    return parser.parse_args()


def chosen_configs(args, found, folder) -> list:
    """Names of the configs to try."""
    names = choose(
        (name, combination(cfg), size(cfg, name))
        for name, cfg in track(found.items(), 'reading configs', len(found))
    )
    if not names:
        raise UsageError(
            f'--filter {args.filter}: no config in {str(folder)!r} has a '
            'name with it'
        )
    if args.limit is not None:
        number = min(check_count(args.limit, '--limit'), len(names))
        names = [names[i * len(names) // number] for i in range(number)]
    return names


def command(args) -> str:
    """What was run, but for where and how fast."""
    parts = ['mutualnet survey', '--project', args.project]
    if args.filter:
        parts += ['--filter', args.filter]
    if args.limit is not None:
        parts += ['--limit', str(args.limit)]
    return ' '.join(parts)


def run(args) -> None:
    check_count(args.jobs, '--jobs')
    if not 0 < args.timeout < math.inf:
        raise UsageError(f'--timeout {args.timeout}: use a positive number')
    folder = config_folder(args.project)
    out = make_folder(args.out)
    logs = make_folder(out / 'logs' / args.project)
    file = out / f'{args.project}.jsonl'
    found, unreadable = stock_configs(folder, args.filter)
    names = chosen_configs(args, found, folder)
    versions = __version__, import_module(args.project).__version__
    records = {
        name: record
        for name, record in read_records(file).items()
        if record.holds(*versions, args.timeout)
    }
    left = [name for name in names if name not in records]
    trials = survey(
        *(args.project, folder, left, out / 'data', logs),
        args.timeout,
        args.jobs,
    )
    for outcome in track(trials, args.project, len(left)):
        today = date.today().isoformat()
        record = Record(outcome, *versions, args.timeout, today)
        add_record(file, record)
        records[outcome.config] = record
    page = coverage_page(
        args.project,
        [records[name] for name in names],
        command(args),
        unreadable,
    )
    pages = [out / f'{args.project}.md']
    is_clone = PAGES.is_dir()  # not of a wheel
    if is_clone and not args.filter and args.limit is None:
        pages.append(PAGES / f'{args.project}.md')
    for path in pages:
        with atomic_write(path) as draft:
            draft.write(page.encode())
    outcomes = [records[name].outcome for name in names]
    for reason, number in reasons(outcomes, 'refused'):
        print(f'{number:4} {reason}')
    if unreadable:
        print(f'{len(unreadable)} configs cannot be read and are left out')
    works = sum(outcome.result == 'works' for outcome in outcomes)
    print(f'{works} of {len(names)} configs work: {pages[-1]}')


def main() -> None:
    args = parse_args()
    with one_line_errors():
        try:
            run(args)
        except KeyboardInterrupt:
            sys.exit('interrupted: the same command goes on from here')


if __name__ == '__main__':
    main()
