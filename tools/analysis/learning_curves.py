#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Draw the losses and metrics of each subnet over one or several trainings.

They are read from what MMEngine has logged in the work dirs. Runs that were
interrupted and resumed are joined.
"""

import argparse
from pathlib import Path

from mutualnet_mm import UsageError
from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.visualization.learning_curves import plot_trainings
from mutualnet_mm.visualization.training_log import read_training


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        'work_dir', nargs='+', help='of a training, or its scalars.json'
    )
    parser.add_argument(
        '--out', required=True, metavar='FILE', help='picture to write'
    )
    parser.add_argument(
        '--metric',
        nargs='+',
        metavar='NAME',
        help='such as coco/bbox_mAP, a panel for each; default: the first',
    )
    parser.add_argument(
        '--labels',
        nargs='+',
        metavar='LABEL',
        help='of the trainings; default: the names of their folders',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with one_line_errors():
        labels = args.labels or [Path(p).resolve().name for p in args.work_dir]
        if len(labels) != len(args.work_dir) or len(set(labels)) < len(labels):
            raise UsageError(
                f'{len(args.work_dir)} trainings and the labels {labels}: '
                'give each a --labels of its own'
            )
        logs = dict(zip(labels, map(read_training, args.work_dir)))
        plot_trainings(logs, args.out, args.metric)
        print(f'written: {args.out}')


if __name__ == '__main__':
    main()
