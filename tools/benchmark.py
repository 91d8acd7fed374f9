#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Measure what a subject takes on this machine, against what else could be.

All that is compared runs in turn, in one process or in ones that are started
in turn; figures are medians, and ratios those of pairs of one round, with 95 %
intervals (bootstrap over rounds). With one thread, which is the default, the
time is that of the processor: other work on the machine changes it little.
With more threads or on another device it is the elapsed time.
"""

import inspect
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from mutualnet_mm import UsageError
from mutualnet_mm.benchmarks import BENCHMARKS
from mutualnet_mm.benchmarks.subjects import NETWORKS
from mutualnet_mm.cli import add_device, one_line_errors, tool_parser
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.files import atomic_write, check_target

# These measure memory, and what is freed has to be handed back for that.
OF_MEMORY = ('memory', 'load')
# The options of a subject are those arguments that its function has.
OPTIONS = dict(
    network=dict(
        help=f'{", ".join(NETWORKS)}, or a config; default: %(default)s'
    ),
    batch_size=dict(type=int, help='default: %(default)s'),
    batch_sizes=dict(type=int, nargs='+', help='default: %(default)s'),
    num_batches=dict(type=int, help='default: %(default)s'),
    subnet=dict(help='such as 0.5x-160, default: the smallest'),
    subnets=dict(type=int, help='how many, default: %(default)s'),
    pictures=dict(type=int, help='how many, default: %(default)s'),
    resolutions=dict(type=int, nargs='+', help='default: %(default)s'),
    step=dict(type=float, help='of the widths, default: %(default)s'),
    processes=dict(type=int, nargs='+', help='default: %(default)s'),
    steps=dict(type=int, help='timed at a time, default: %(default)s'),
    divisors=dict(type=int, nargs='+', help='default: %(default)s'),
    widths=dict(type=float, nargs='+', help='default: %(default)s'),
    channels=dict(
        type=int, nargs='+', help='time layers of so many, not networks'
    ),
    rounds=dict(type=int, help='of each, default: %(default)s'),
)


def parse_args():
    parser = tool_parser(__doc__)
    subjects = parser.add_subparsers(
        dest='subject', required=True, metavar='SUBJECT'
    )
    for name, function in BENCHMARKS.items():
        what = (function.__doc__ or '').splitlines()[0]
        own = subjects.add_parser(name, help=what, description=what)
        for argument in inspect.signature(function).parameters.values():
            if argument.name == 'device':
                add_device(own)
                continue
            own.add_argument(
                f'--{argument.name.replace("_", "-")}',
                default=argument.default,
                **OPTIONS[argument.name],
            )
        own.add_argument(
            '--threads', type=int, default=1, help='default: %(default)s'
        )
        own.add_argument(
            '--json', metavar='FILE', help='write all figures, too'
        )
    return parser.parse_args()


def show(found: dict) -> None:
    """Print what was measured."""
    view = Table(
        title=f'{found["subject"]}: {found["machine"]}',
        caption=f'{found["clock"]} time, medians of {found["rounds"]} rounds',
    )
    view.add_column('what')
    for label in ('ratio', '95 % interval', 'goal'):
        view.add_column(label, justify='right', no_wrap=True)
    for one in found['ratios']:
        goal = '' if one['goal'] is None else f'<= {one["goal"]:.3g}'
        view.add_row(
            one['what'],
            f'{one["value"]:.3f}',
            f'{one["low"]:.3f} to {one["high"]:.3f}',
            goal,
        )
    Console().print(view)
    times = found['milliseconds'].items()
    print(', '.join(f'{name} {value:.1f} ms' for name, value in times))


def check_counts(args: dict) -> None:
    """Refuse numbers of which there is at least one."""
    for name, value in args.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, int) and one < 1:
                option = name.replace('_', '-')
                raise UsageError(f'--{option} {one}: use 1 or more')


def main() -> None:
    args = vars(parse_args())
    name, out, threads = (args.pop(k) for k in ('subject', 'json', 'threads'))
    if name in OF_MEMORY:
        torch.set_flush_denormal(True)
    else:
        prepare_cpu()
    with one_line_errors(), redirect_stdout(sys.stderr):
        if threads < 1:
            raise UsageError(f'--threads {threads}: use 1 or more')
        check_counts(args)
        if out is not None:
            check_target(out)
        torch.set_num_threads(threads)
        found = BENCHMARKS[name](**args)
        if out is not None:
            with atomic_write(Path(out)) as file:
                file.write(f'{json.dumps(found, indent=2)}\n'.encode())
    show(found)


if __name__ == '__main__':
    main()
