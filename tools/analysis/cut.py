#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Cut a network trained as usual, and compare with trained ones (Table 1).

The full network is cut in width and its inputs are shrunk, without training it
again: with its own batch-norm statistics and with calibrated ones. Beside it
are subnets that were trained alone, if checkpoints of them are given, and
those of one adaptive network. Prints the table and leaves cut.json and cut.csv
in the folder given. Interrupted, the same command goes on where it stopped.
"""

import argparse
import sys
from contextlib import redirect_stdout

from rich.console import Console
from rich.table import Table

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.analysis.cut import cut_table, save_cut
from mutualnet_mm.apis import load_config
from mutualnet_mm.cli import config_parser, one_line_errors
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.files import output_folder


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument(
        'stock', help='checkpoint of the full network trained alone'
    )
    parser.add_argument('adaptive', help='checkpoint of mutual learning')
    parser.add_argument(
        '--alone',
        nargs='+',
        default=[],
        metavar='SUBNET=CHECKPOINT',
        help='checkpoints of subnets that were trained alone',
    )
    parser.add_argument(
        '--subnet',
        nargs='+',
        metavar='SUBNET',
        help="such as 1.0x-224 0.5x-160, default: test_cfg's",
    )
    parser.add_argument(
        '--num-images',
        type=int,
        metavar='N',
        help='test on N random images, always the same ones; default: all',
    )
    parser.add_argument(
        '--metric',
        help='to show, such as accuracy/top1, default: the first one of the '
        'evaluator; whether it gives this one is known with the first '
        'results, which are kept',
    )
    parser.add_argument('--out', required=True, help='folder of the results')
    return parser.parse_args()


def read_alone(given: list) -> dict:
    """Read ``SUBNET=CHECKPOINT``."""
    found = {}
    for text in given:
        subnet, _, checkpoint = text.partition('=')
        if not checkpoint:
            raise UsageError(
                f'--alone {text}: write SUBNET=CHECKPOINT, as in '
                '0.5x-160=work_dirs/half/epoch_250.pth'
            )
        found[Subnet.parse(subnet)] = checkpoint
    return found


def show(tables: dict) -> None:
    """Print a row for each method and a column for each subnet."""
    first = next(iter(tables.values()))
    shown = Table(
        caption=f'{first.metric} [95 % interval], {first.num_images} images'
    )
    shown.add_column('')
    for entry in first.entries:
        head = f'{entry.subnet}\n{entry.macs / 1e6:.2f} M'
        shown.add_column(head, justify='right')
    for name, method in tables.items():
        cells = {e.subnet: cell(method, e) for e in method.entries}
        row = [cells.get(entry.subnet, '-') for entry in first.entries]
        shown.add_row(name, *row)
    Console(width=None if sys.stdout.isatty() else 200).print(shown)


def cell(method, entry) -> str:
    """The metric of a subnet, with its interval."""
    score, interval = method.score(entry), method.interval(entry)
    if score is None:
        return '-'
    digits = 1 if interval and interval[1] > 1 else 3
    text = f'{score:.{digits}f}'
    if interval is not None:
        low, high = interval
        text += f' [{low:.{digits}f}, {high:.{digits}f}]'
    return text


def main() -> None:
    args = parse_args()
    prepare_cpu()
    # Standard output is the table's alone: stock code logs there, too.
    with one_line_errors(), redirect_stdout(sys.stderr), output_folder(
        args.out
    ):
        alone = read_alone(args.alone)
        cfg = load_config(
            args.config, args.cfg_options, args.out, stages=('test',)
        )
        try:
            tables = cut_table(
                cfg,
                args.stock,
                args.adaptive,
                args.out,
                args.subnet,
                alone,
                args.num_images,
                args.metric,
            )
        except KeyboardInterrupt:
            sys.exit('interrupted: the same command goes on from here')
        save_cut(tables, args.out)
    show(tables)


if __name__ == '__main__':
    main()
