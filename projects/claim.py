#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Compare one network with networks trained alone, at every budget.

On 10,000 images of CIFAR-10 and of Fashion-MNIST, at 16 x 16 pixels, and on
2,500 of CIFAR-10. Finished runs are kept: it can be stopped at any time, and
goes on where it was. Each process uses one CPU thread; start it once per core,
with the same --out, and they share the runs.
"""

from pathlib import Path

import torch
from claim_images import READERS, prepare_images
from claim_methods import DATA, SIZES
from claim_report import ClaimReport
from claim_study import ClaimStudy
from trainings import try_lock

from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.errors import UsageError
from mutualnet_mm.files import make_folder

CONTENTS = {
    'cifar10': '{train,test}/<class>/*.jpg',
    'fashion-mnist': 'the four published files, unpacked',
}


def parse_args():
    parser = tool_parser(__doc__)
    for name, content in CONTENTS.items():
        help_text = f'folder of {content}'
        parser.add_argument(f'--{name}', type=Path, help=help_text)
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/claim'),
        help='where images and runs go, default: %(default)s',
    )
    parser.add_argument(
        '--records',
        type=Path,
        help='runs that were finished elsewhere: the records.csv of a report',
    )
    parser.add_argument(
        '--report',
        type=Path,
        metavar='FOLDER',
        help='train nothing: write figures and records.csv of the runs that '
        'are finished into FOLDER, and their tables into FOLDER.md',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    prepare_cpu()
    with one_line_errors():
        folders = {n: vars(args)[n.replace('-', '_')] for n in READERS}
        given = {n: folder for n, folder in folders.items() if folder}
        if not given:
            raise UsageError(
                f'no data: give {" or ".join("--" + n for n in READERS)}'
            )
        out = make_folder(args.out)
        with try_lock(out / 'lock', wait=True):
            images = {
                name: prepare_images(name, folder, out, SIZES[0])
                for name, folder in given.items()
            }
        for name, data in DATA.items():
            if data.is_part and data.source in images:
                images[name] = images[data.source]
        study = ClaimStudy(images, out, args.records)
        if args.report:
            ClaimReport(study).write(make_folder(args.report))
        else:
            study.work()


if __name__ == '__main__':
    main()
