#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Compare MutualNet with its baselines on CIFAR-10, several seeds each.

Every method is trained with the learning rate that did best for it on images
held back. Finished runs are kept: stopped at any time, it goes on where it
was. Each process uses one CPU thread; start it once per core, with the same
--out, and they share the runs.
"""

from argparse import Namespace
from pathlib import Path

import torch
from cifar10_images import prepare_images
from cifar10_methods import RECIPES
from cifar10_report import Report
from cifar10_study import Study
from trainings import study_parser, try_lock

from mutualnet_mm.cli import one_line_errors
from mutualnet_mm.devices import prepare_cpu


def parse_args() -> Namespace:
    parser = study_parser(__doc__, 'cifar10')
    parser.add_argument(
        'data', type=Path, help='folder with {train,test}/<class>/*.jpg'
    )
    parser.add_argument(
        '--recipe',
        choices=sorted(RECIPES),
        default='full' if torch.cuda.is_available() else 'cpu',
        help='how much of everything, default on this machine: %(default)s',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    prepare_cpu()
    recipe = RECIPES[args.recipe]
    with one_line_errors():
        args.out.mkdir(parents=True, exist_ok=True)
        study = Study(recipe, args.out)
        if not args.report:
            with try_lock(args.out / 'lock', wait=True):
                prepare_images(
                    args.data,
                    args.out / 'images',
                    recipe.sizes[0],
                    recipe.train_images,
                    recipe.test_images,
                )
            study.work()
        Report(study).write(args.out)
    print((args.out / 'report.md').read_text())


if __name__ == '__main__':
    main()
