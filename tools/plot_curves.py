#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Draw the curves of query tables into one picture, or a page to move in.

--out names both: curve.png or another kind of picture, or curve.html, a page
that shows over each subnet what it costs and reaches, and needs no network.
Or say in words which dimension the best subnets give up from budget to budget
(--describe): width, resolution or frames; and what cascades of two subnets
reach at a mean cost, where the table has them.
"""

import argparse
from pathlib import Path

from mutualnet_mm import UsageError
from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.query_table import (
    describe_cascades,
    describe_front,
    load_table,
)
from mutualnet_mm.query_table.entry import COSTS, MEASURED
from mutualnet_mm.visualization import plot_tables


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        'table', nargs='+', help='table.json of mutualnet table'
    )
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='picture (.png, .pdf, ...) or page (.html) to write',
    )
    parser.add_argument(
        '--describe',
        action='store_true',
        help='print what the best subnets give up at each budget, and what '
        'cascades reach',
    )
    parser.add_argument(
        '--metric', help='to show, default: the one that ranks the tables'
    )
    parser.add_argument(
        '--cost',
        choices=COSTS,
        default='macs',
        help='what to show accuracy over, default: %(default)s; what is '
        'neither macs nor params is there where mutualnet latency has '
        'measured it',
    )
    parser.add_argument(
        '--device',
        help='that measured it, default: the only one there is',
    )
    parser.add_argument(
        '--labels',
        nargs='+',
        metavar='LABEL',
        help='of the tables; default: the names of their folders',
    )
    parser.add_argument(
        '--log',
        action='store_true',
        help='make the axis of the cost logarithmic',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with one_line_errors():
        labels = args.labels or [
            Path(p).resolve().parent.name for p in args.table
        ]
        if len(labels) != len(args.table) or len(set(labels)) < len(labels):
            raise UsageError(
                f'{len(args.table)} tables and the labels {labels}: give each '
                'a --labels of its own'
            )
        if args.device and args.cost not in MEASURED:
            raise UsageError(f'--device {args.device}: add --cost latency_ms')
        if not args.out and not args.describe:
            raise UsageError('nothing to do: name a picture by --out')
        tables = dict(zip(labels, map(load_table, args.table)))
        if args.out:
            plot_tables(
                tables,
                args.out,
                args.metric,
                args.log,
                args.cost,
                args.device,
            )
            print(f'written: {args.out}')
        if args.describe:
            for label, table in tables.items():
                ranked = table.ranked_by(args.metric or table.metric)
                print(f'{label}: {describe_front(ranked)}')
                if ranked.cascades is not None:
                    print(f'{label}, cascades: {describe_cascades(ranked)}')


if __name__ == '__main__':
    main()
