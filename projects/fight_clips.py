#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Compare mutual learning with subnets trained alone on short clips.

A small Slow and a small SlowFast network, two classes, five folds. Finished
runs are kept: stopped at any time, it goes on where it was. Each process uses
one CPU thread; start it once per core, with the same --out, and they share
the runs.
"""

from argparse import Namespace
from pathlib import Path

import torch
from fight_data import prepare_clips
from fight_study import FOLDS, Study
from trainings import study_parser, try_lock

from mutualnet_mm.cli import one_line_errors
from mutualnet_mm.devices import prepare_cpu


def parse_args() -> Namespace:
    parser = study_parser(__doc__, 'fight_clips')
    parser.add_argument(
        'data',
        type=Path,
        help='folder with the videos and their lists, train.txt and val.txt',
    )
    parser.add_argument(
        '--epochs', type=int, help="of every run, default: the configs'"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    prepare_cpu()
    with one_line_errors():
        args.out.mkdir(parents=True, exist_ok=True)
        study = Study(args.out, args.epochs)
        if not args.report:
            with try_lock(args.out / 'lock', wait=True):
                prepare_clips(args.data, args.out / 'clips', FOLDS)
            study.work()
        print(study.report())


if __name__ == '__main__':
    main()
