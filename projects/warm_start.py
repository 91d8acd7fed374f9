#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Is it worth to start from a trained network, and to sort its channels?

Trains a stock ResNet-14 on handwritten digits, sorts its channels by each
measure, and tests its subnets before and after adaptive trainings of several
lengths, beside such ones from scratch. With --claim, the same with the network
of projects/claim.py on CIFAR-10. Finished runs are kept: stopped at any time,
it goes on where it was. Each process uses one CPU thread; start it once per
core, with the same --out, and they share the runs.
"""

from pathlib import Path

import torch
from trainings import study_parser, try_lock
from warm_start_report import WarmStartReport
from warm_start_study import Cifar10, Digits, WarmStart

from mutualnet_mm.cli import one_line_errors
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.files import make_folder


def main() -> None:
    parser = study_parser(__doc__, 'warm_start')
    parser.add_argument(
        '--claim',
        type=Path,
        metavar='FOLDER',
        help='the --out of projects/claim.py: take its network and CIFAR-10',
    )
    parser.add_argument(
        '--records',
        type=Path,
        help='the --records of projects/claim.py, if it was given any',
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    prepare_cpu()
    with one_line_errors():
        study: WarmStart
        if args.claim:
            out = make_folder(args.out / 'cifar10')
            study = Cifar10(out, args.claim, args.records)
        else:
            out = make_folder(args.out)
            with try_lock(out / 'lock', wait=True):
                study = Digits(out)
        if not args.report:
            study.work()
        report = WarmStartReport(study)
        print(report.tables())
        report.draw(args.out / f'warm_start_{study.name}.png')


if __name__ == '__main__':
    main()
