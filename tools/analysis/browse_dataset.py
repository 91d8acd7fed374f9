#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Draw what each subnet sees of a data set, boxes and masks included.

Samples pass through the config's own pipeline and data preprocessor and are
brought to each subnet's resolution and frames as in training, or in testing
(--phase test), ground truth and all: a fault there shows. One picture for each
sample, with a panel for each subnet.
"""

import argparse

from mutualnet_mm.analysis.map_figures import save_figure
from mutualnet_mm.analysis.seen_figures import draw_sample
from mutualnet_mm.analysis.seen_inputs import default_subnets, seen_samples
from mutualnet_mm.apis import build_model, load_config
from mutualnet_mm.cli import config_parser, one_line_errors
from mutualnet_mm.errors import check_count
from mutualnet_mm.files import output_folder
from mutualnet_mm.progress_bars import track


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument(
        *('--output-dir', '-o'), required=True, help='folder of the pictures'
    )
    parser.add_argument(
        *('--phase', '-p'),
        choices=['train', 'val', 'test'],
        default='train',
        help='whose data loader, default: %(default)s',
    )
    parser.add_argument(
        *('--number', '-n'),
        type=int,
        default=10,
        metavar='N',
        help='how many samples, default: %(default)s',
    )
    parser.add_argument(
        '--subnet',
        nargs='+',
        metavar='SUBNET',
        help='such as 1.0x-224 0.5x-160, default: one for each resolution',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with one_line_errors(), output_folder(args.output_dir) as out:
        number = check_count(args.number, '--number')
        cfg = load_config(
            args.config,
            args.cfg_options,
            args.output_dir,
            stages=(args.phase,),
        )
        model = build_model(cfg)
        samples = seen_samples(
            cfg,
            model,
            args.subnet or default_subnets(model),
            args.phase,
            number,
        )
        count = 0
        for sample in track(samples, 'drawing', number):
            name = '_'.join(filter(None, (f'{count:04d}', sample.name)))
            save_figure(draw_sample(sample), out / f'{name}.png')
            count += 1
    print(f'{count} pictures in {out}')


if __name__ == '__main__':
    main()
