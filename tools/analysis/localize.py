#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Measure how well subnets localise objects that they only learned to name.

Boxes are drawn around the strongest part of each class activation map of the
test set (Table 2 of the paper); one is right if its intersection over union
with a true box is above 0.5. Large objects take more than half of their image,
small ones less than a fifth.
"""

import argparse
import sys
from contextlib import redirect_stdout

from rich.console import Console
from rich.table import Table

from mutualnet_mm.analysis import TrainedNetwork
from mutualnet_mm.analysis.box_checks import check_localization
from mutualnet_mm.analysis.localization import (
    GROUPS,
    OF_MAPS,
    check_table_file,
    localize,
    save_accuracies,
    summarize,
)
from mutualnet_mm.analysis.true_boxes import TrueBoxes
from mutualnet_mm.cli import one_line_errors
from mutualnet_mm.cli_analysis import trained_parser
from mutualnet_mm.config import load_config


def parse_args() -> argparse.Namespace:
    parser = trained_parser(
        __doc__,
        '1.0x-224 0.75x-128',
        '; others are compared with the first',
    )
    parser.add_argument(
        '--boxes',
        required=True,
        metavar='PATH',
        help="of the test set: a .json file in COCO's format, or a folder of "
        ".xml files, one for each image, as ImageNet's",
    )
    parser.add_argument(
        '--threshold',
        nargs='+',
        type=float,
        default=[0.2],
        metavar='FRACTION',
        help="of a map's maximum, from which points belong to the object, "
        'default: 0.2',
    )
    parser.add_argument(
        '--map',
        choices=OF_MAPS,
        default='truth',
        help='class to map: the true one (default), or the predicted one',
    )
    parser.add_argument(
        '--out',
        nargs='+',
        default=[],
        metavar='FILE',
        help='write the table as .json (with every image) or .csv',
    )
    return parser.parse_intermixed_args()


def run(args: argparse.Namespace) -> list:
    """Localise, write what is asked for and return the rows."""
    for file in args.out:
        check_table_file(file)
    cfg = load_config(args.config, args.cfg_options)
    truth = TrueBoxes(args.boxes)
    images = check_localization(cfg, truth, args.threshold)
    network = TrainedNetwork(
        cfg,
        args.checkpoint,
        args.subnet,
        device=args.device,
        tasks=('classification',),
    )
    found = localize(network, truth, args.threshold, args.map, images)
    rows = summarize(found, network.subnets)
    settings = {
        name: getattr(args, name)
        for name in ('config', 'checkpoint', 'boxes', 'threshold', 'map')
    }
    for file in args.out:
        save_accuracies(rows, found, settings, file)
    return rows


def show(rows: list, of: str) -> None:
    """Print a table for each threshold."""
    caption = 'percent right, 95 % interval'
    if len({row.subnet for row in rows}) > 1:
        caption += (
            '; images right that the first subnet gets wrong, and the reverse'
        )
    for threshold in dict.fromkeys(row.threshold for row in rows):
        view = Table(
            title=f'maps of the {of}, from {threshold:g} of the maximum',
            caption=caption,
        )
        for name in ('subnet', 'top-1', *GROUPS):
            view.add_column(name, justify='right', no_wrap=True)
        own = [row for row in rows if row.threshold == threshold]
        counts = {row.group: row.images for row in own}
        view.add_row('images', '', *(str(counts[group]) for group in GROUPS))
        first = own[0].subnet
        for subnet in dict.fromkeys(row.subnet for row in own):
            cells = {r.group: r for r in own if r.subnet == subnet}
            top1 = cells['all'].top1
            view.add_row(
                subnet,
                '-' if top1 is None else f'{top1:.1f}',
                *(cell(cells[group], first) for group in GROUPS),
            )
        Console(width=120).print(view)


def cell(row, first: str) -> str:
    """Write one accuracy; beside the first subnet's, unless it is its own."""
    if row.accuracy is None:
        return '-'
    text = f'{row.accuracy:.1f} ({row.low:.1f} to {row.high:.1f})'
    if row.subnet == first:
        return text
    return f'{text} +{row.only_this} -{row.only_first}'


def main() -> None:
    args = parse_args()
    # Standard output is the table's alone: stock code logs there, too.
    with one_line_errors(), redirect_stdout(sys.stderr):
        rows = run(args)
    show(rows, args.map)


if __name__ == '__main__':
    main()
