#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Draw the accuracy-MACs curves of query tables into one picture."""

import argparse
from pathlib import Path

from mutualnet_mm import UsageError
from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.query_table import load_table
from mutualnet_mm.visualization import plot_tables


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        'table', nargs='+', help='table.json of build_table.py'
    )
    parser.add_argument('--out', required=True, help='picture to write')
    parser.add_argument(
        '--metric', help='to show, default: the one that ranks the tables'
    )
    parser.add_argument(
        '--labels',
        nargs='+',
        metavar='LABEL',
        help='of the tables; default: the names of their folders',
    )
    parser.add_argument(
        '--log', action='store_true', help='make the axis of MACs logarithmic'
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
        tables = dict(zip(labels, map(load_table, args.table)))
        plot_tables(tables, args.out, args.metric, args.log)


if __name__ == '__main__':
    main()
