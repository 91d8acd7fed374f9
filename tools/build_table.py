#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Evaluate a grid of subnets; write their table, curve and statistics.

Leaves table.json, table.csv, curve.png and adaptive.pth in the folder given.
Interrupted, the same command goes on where it stopped.
Several processes share the subnets, on one machine or on many with a common
folder: --shard 1/4 to 4/4, or one command by torchrun, srun or mpirun. They
exchange nothing but files; the last one to finish writes the table.
"""

import sys

from mutualnet_mm import UsageError
from mutualnet_mm.apis import build_table, load_config, search_widths
from mutualnet_mm.cli import config_parser, one_line_errors
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.visualization import print_table


def parse_args():
    parser = config_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out', required=True, help='folder of the results and of the logs'
    )
    parser.add_argument(
        '--step',
        type=float,
        default=0.05,
        help='of the widths, default: %(default)s',
    )
    parser.add_argument(
        '--subnet',
        nargs='+',
        metavar='SUBNET',
        help='such as 1.0x-224 0.5x-160, in place of the grid',
    )
    parser.add_argument(
        '--search',
        type=int,
        metavar='N',
        help='add subnets with a width for each stage, drawn around the best '
        'ones, until there are N with different widths; for networks that '
        'were trained with mutual.stages',
    )
    parser.add_argument(
        '--num-images',
        type=int,
        metavar='N',
        help='test on N random images or videos, always the same ones; '
        'default: all',
    )
    parser.add_argument(
        '--metric',
        help='ranks the subnets, such as accuracy/top1; default: the first '
        'one of the test_evaluator; whether it gives this one is known with '
        'the first results, which are kept',
    )
    parser.add_argument(
        '--shard',
        metavar='PART',
        help='which part of the subnets, such as 3/8; default: by the rank '
        'of the process that torchrun, srun or mpirun started, else all',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    prepare_cpu()
    with one_line_errors():
        cfg = load_config(
            args.config,
            args.cfg_options,
            args.out,
            stages=('test',),
        )
        given = cfg, args.checkpoint, args.out
        settings = args.step, args.subnet, args.num_images, args.metric
        try:
            if args.search is None:
                table = build_table(*given, *settings, args.shard)
            elif args.shard is None:
                table = search_widths(*given, args.search, *settings)
            else:
                raise UsageError(
                    f'--search {args.search} --shard {args.shard}: each draw '
                    'needs all results so far, leave one of them out'
                )
        except KeyboardInterrupt:
            sys.exit('interrupted: the same command goes on from here')
    if table is None:
        print(
            'this part is finished, others are not: the last one writes '
            f'{args.out}/table.json'
        )
        return
    print_table(table)
    what = 'subnet' if len(table.entries) == 1 else 'subnets'
    cascades = ''
    if table.cascades:
        cascades = f', and {len(table.cascades)} cascades of two'
    print(
        f'{len(table.entries)} {what}, {len(table.pareto)} of them the best '
        f'for some budget{cascades}: {args.out}/'
        '{table.json,table.csv,curve.png,adaptive.pth}'
    )
    if all(map(table.interval, table.pareto)):
        print(uncertainty(table))


def uncertainty(table) -> str:
    """Say how far the best score may be off, and what is as good."""
    everything = max(entry.macs for entry in table.entries)
    best = table.best(macs=everything)
    low, high = table.interval(best)
    text = (
        f'{best.subnet} has {table.metric} {table.score(best):.4g}, with 95 % '
        f'between {low:.4g} and {high:.4g}'
    )
    try:
        cheapest = table.best(macs=everything, prefer='cheapest')
    except UsageError:  # some are of an earlier release, without intervals
        return text
    if best.macs == min(entry.macs for entry in table.entries):
        return f'{text}, and is the cheapest of all'
    if cheapest == best:
        return f'{text}, significantly more than all that is cheaper'
    share = cheapest.macs / best.macs
    return (
        f'{text}; {cheapest.subnet} takes {share:.0%} of its MACs and is not '
        "significantly worse (prefer='cheapest')"
    )


if __name__ == '__main__':
    main()
