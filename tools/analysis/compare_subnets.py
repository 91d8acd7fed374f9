#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Draw detections of several subnets, or of two networks, side by side.

The first subnet of the first checkpoint is what the others are compared with:
framed in blue is what a panel finds and the first one misses, in dashed red
where it misses what the first one finds; in the first panel, in blue, what
any other misses (Fig. 17). Leaves a picture of each image and compare.json in
the folder given.
"""

import argparse
import json
import sys
from contextlib import redirect_stdout

from rich.console import Console
from rich.table import Table

from mutualnet_mm import UsageError
from mutualnet_mm.analysis import TrainedNetwork
from mutualnet_mm.analysis.compare import (
    Detectors,
    compare_panels,
    draw_comparison,
    name_networks,
    shared_meta,
    totals,
)
from mutualnet_mm.analysis.map_figures import output_names, save_figure
from mutualnet_mm.apis import load_config
from mutualnet_mm.cli import one_line_errors
from mutualnet_mm.cli_analysis import trained_parser
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.files import atomic_write, output_folder
from mutualnet_mm.progress_bars import track


def parse_args() -> argparse.Namespace:
    parser = trained_parser(__doc__, '1.0x-192 0.25x-128')
    parser.add_argument('images', nargs='+', help='image files')
    parser.add_argument(
        '--against', metavar='CHECKPOINT', help='of a second network'
    )
    parser.add_argument(
        '--against-config',
        metavar='CONFIG',
        help='of the second network, default: the same',
    )
    parser.add_argument(
        '--score',
        type=float,
        default=0.3,
        help='least score of what counts as found, default: %(default)s',
    )
    parser.add_argument(
        '--iou',
        type=float,
        default=0.5,
        help='least overlap of detections of one object, default: %(default)s',
    )
    parser.add_argument('--out', required=True, help='folder of the results')
    return parser.parse_intermixed_args()


def open_networks(args) -> dict:
    """Networks by name, with their subnets."""
    checkpoints, configs = [args.checkpoint], [args.config]
    if args.against is not None:
        checkpoints.append(args.against)
        configs.append(args.against_config or args.config)
    elif args.against_config is not None:
        raise UsageError(
            f'--against-config {args.against_config}: give its checkpoint, '
            '--against'
        )
    networks = {}
    names = name_networks(checkpoints)
    for name, config, checkpoint in zip(names, configs, checkpoints):
        cfg = load_config(config, args.cfg_options, args.out, stages=())
        networks[name] = TrainedNetwork(
            cfg, checkpoint, args.subnet, device=args.device
        )
    return networks


def main() -> None:
    args = parse_args()
    prepare_cpu()
    # Standard output is the table's alone: stock code logs there, too.
    with one_line_errors(), redirect_stdout(sys.stderr), output_folder(
        args.out
    ) as out:
        for name in ('score', 'iou'):
            value = getattr(args, name)
            if not 0 < value <= 1:
                raise UsageError(
                    f'--{name} {value}: use a number above 0, up to 1'
                )
        stems = output_names(args.images)
        meta = shared_meta(
            [args.checkpoint] + ([args.against] if args.against else [])
        )
        detectors = Detectors(open_networks(args), args.score)
        images = {}
        for image, stem in zip(track(args.images, 'comparing'), stems):
            panels = detectors(image)
            images[image] = compared = compare_panels(panels, args.iou)
            figure = draw_comparison(image, panels, compared, meta)
            save_figure(figure, out / f'{stem}.png')
        rows = totals(images)
        content = dict(
            score=args.score,
            iou=args.iou,
            totals=rows,
            images={
                image: [own._asdict() for own in compared]
                for image, compared in images.items()
            },
        )
        with atomic_write(out / 'compare.json') as file:
            file.write(f'{json.dumps(content, indent=2)}\n'.encode())
    shown = Table(caption=f'{len(images)} images, beside the first panel')
    for name in rows[0]:
        shown.add_column(name.replace('_', ' '))
    for row in rows:
        shown.add_row(*map(str, row.values()))
    Console().print(shown)


if __name__ == '__main__':
    main()
