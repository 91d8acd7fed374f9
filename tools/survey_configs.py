#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Try which stock configs of a project can be made adaptive.

One config of each combination of parts, adaptive and as it is, each in a
process of its own, on generated data. Interrupted, the same command goes on
where it stopped. Leaves DIR/PROJECT.jsonl and DIR/PROJECT.md, and writes
docs/coverage/PROJECT.md once all configs of the project were tried.
"""

import sys
from datetime import date
from importlib import import_module
from pathlib import Path

from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.config.stock import config_folder
from mutualnet_mm.errors import UsageError, check_count
from mutualnet_mm.files import make_folder
from mutualnet_mm.progress_bars import track
from mutualnet_mm.survey import (
    DIVISORS,
    add_outcome,
    choose,
    combination,
    coverage_page,
    read_outcomes,
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


def chosen_configs(args, folder) -> list:
    """Names of the configs to try."""
    found = stock_configs(folder, args.filter)
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


def run(args) -> None:
    check_count(args.jobs, '--jobs')
    folder = config_folder(args.project)
    out = make_folder(args.out)
    logs = make_folder(out / 'logs' / args.project)
    file = out / f'{args.project}.jsonl'
    names = chosen_configs(args, folder)
    outcomes = read_outcomes(file)
    left = [name for name in names if name not in outcomes]
    trials = survey(
        *(args.project, folder, left, out / 'data', logs),
        args.timeout,
        args.jobs,
    )
    for outcome in track(trials, args.project, len(left)):
        add_outcome(file, outcome)
        outcomes[outcome.config] = outcome
    found = [outcomes[name] for name in names]
    page = coverage_page(
        args.project,
        import_module(args.project).__version__,
        found,
        ' '.join(['tools/survey_configs.py', *sys.argv[1:]]),
        date.today().isoformat(),
    )
    pages = [out / f'{args.project}.md']
    if not args.filter and args.limit is None:
        pages.append(make_folder(PAGES) / f'{args.project}.md')
    for path in pages:
        path.write_text(page, encoding='utf-8')
    for reason, number in reasons(found, 'refused'):
        print(f'{number:4} {reason}')
    works = sum(outcome.result == 'works' for outcome in found)
    print(f'{works} of {len(found)} configs work: {pages[-1]}')


def main() -> None:
    args = parse_args()
    with one_line_errors():
        try:
            run(args)
        except KeyboardInterrupt:
            sys.exit('interrupted: the same command goes on from here')


if __name__ == '__main__':
    main()
