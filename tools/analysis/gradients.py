#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Decompose the gradient of a training step into its subnets' (Sec. 3.3).

Shows that the gradient of the shared weights is the sum of the subnets' (Eq.
6, 7), and by layer how large they are and whether they point the same way, on
the channels that all of them share. With a config of US-Net + multi-scale
(mutual.resolution_mode='shared') all networks of a step, the full one too,
have the one resolution that is given. Leaves gradients.json, gradients.csv and
gradients.png in the folder given.
"""

import argparse
import sys
from contextlib import redirect_stdout
from typing import Optional

from rich.console import Console
from rich.table import Table

from mutualnet_mm.analysis.gradient_report import (
    describe_gradients,
    save_gradients,
)
from mutualnet_mm.analysis.gradients import decompose
from mutualnet_mm.analysis.step_gradients import step_subnets, training_batches
from mutualnet_mm.apis import build_model, load_config
from mutualnet_mm.cli import config_parser, one_line_errors
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.errors import check_count
from mutualnet_mm.files import output_folder
from mutualnet_mm.models.checkpoints import load_trained
from mutualnet_mm.progress_bars import track


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='trained weights; default: as the training starts',
    )
    parser.add_argument(
        '--subnet',
        nargs='+',
        metavar='SUBNET',
        help='of the step, beside the full network, such as 0.4x-128 '
        '0.8x-192; default: what the first step draws',
    )
    parser.add_argument(
        '--num-batches',
        type=int,
        default=8,
        metavar='N',
        help='of the training data, to take the mean of; default: %(default)s',
    )
    parser.add_argument(
        '--float32',
        action='store_true',
        help='compute in single precision, for heads that have no other',
    )
    parser.add_argument('--out', required=True, help='folder of the results')
    return parser.parse_args()


def show(found) -> None:
    """Print a row for each convolution and linear layer."""
    shown = Table(caption='cosines on the shared channels')
    shown.add_column('layer', no_wrap=True)
    shown.add_column('shared', justify='right')
    for name in found.subnets:
        shown.add_column(f'norm {name}', justify='right')
    for a, b in found.whole.cosines:
        shown.add_column(f'{a}\n{b}', justify='right')
    for layer in (*found.matrices, found.whole):
        shown.add_row(
            layer.name,
            f'{layer.shared / layer.total:.0%}',
            *(f'{norm:.2e}' for norm in layer.norms.values()),
            *(number(mean) for mean, _ in layer.cosines.values()),
        )
    blank = [''] * (1 + len(found.subnets))
    medians = (number(found.median(pair)) for pair in found.whole.cosines)
    shown.add_row('median of layers', *blank, *medians)
    Console(width=None if sys.stdout.isatty() else 200).print(shown)
    print(describe_gradients(found))


def number(cosine: Optional[float]) -> str:
    """Write a cosine; of a zero gradient there is none."""
    return '-' if cosine is None else f'{cosine:.2f}'


def main() -> None:
    args = parse_args()
    prepare_cpu()
    # Standard output is the table's alone: stock code logs there, too.
    with one_line_errors(), redirect_stdout(sys.stderr), output_folder(
        args.out
    ) as out:
        num_batches = check_count(args.num_batches, '--num-batches')
        cfg = load_config(
            args.config, args.cfg_options, args.out, stages=('train',)
        )
        model = build_model(cfg)
        subnets = step_subnets(model, args.subnet)
        if args.checkpoint is None:
            model.init_weights()
        else:
            load_trained(model, args.checkpoint)
        batches = training_batches(cfg, model, num_batches)
        found = decompose(
            model,
            track(batches, 'taking gradients', num_batches),
            subnets,
            double=not args.float32,
        )
        save_gradients(found, out)
    show(found)


if __name__ == '__main__':
    main()
