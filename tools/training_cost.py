#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Compare the cost of mutual learning with that of independent networks.

Counted are the multiply-accumulates of the forward passes for one training
image (the paper's Table 3); the backward passes take about twice as many in
every row. Eq. 2 takes them as proportional to width^2 x resolution^2 (x
frames). A detector's are those of backbone and neck for an image of 480 x 640
pixels.
"""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import partial

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mutualnet_mm.apis import (
    build_model,
    closed_form_ratio,
    config_parser,
    count_macs,
    expected_macs,
    listed_subnets,
    load_config,
    measure_steps,
    one_line_errors,
)


def parse_args():
    parser = config_parser(__doc__)
    parser.epilog = ' '.join(__doc__.split('\n\n')[1].split())
    parser.add_argument(
        '--measure',
        action='store_true',
        help='also time training iterations of mutual learning and of the '
        'full network alone on a batch of train_dataloader',
    )
    parser.add_argument(
        '--json', action='store_true', help='print JSON instead of a table'
    )
    return parser.parse_args()


def count(args) -> dict:
    """All figures, absolute and relative to the full network's."""
    cfg = load_config(
        args.config,
        args.cfg_options,
        launcher='none',
        stages=('train',) if args.measure else (),
    )
    progress = partial(track, console=Console(stderr=True), transient=True)
    # First, since it is what may fail.
    times = (
        measure_steps(cfg, track=partial(progress, description='Timing'))
        if args.measure
        else None
    )
    model = build_model(cfg)
    full = count_macs(model, model.space.full)
    listed, grid = (
        {str(s): count_macs(model, s) for s in subnets}
        for subnets in (listed_subnets(cfg, model), model.space.grid())
    )
    macs = dict(
        full=full,
        closed_form=full * closed_form_ratio(model.sampler),
        expected=expected_macs(
            model, partial(progress, description='Counting')
        ),
        listed=sum(listed.values()),
        grid=sum(grid.values()),
    )
    result = dict(
        full=str(model.space.full),
        independent=dict(listed=listed, grid=grid),
        macs=macs,
        ratio={name: number / full for name, number in macs.items()},
    )
    if times is not None:
        result['measured'] = asdict(times)
    return result


def show(result: dict) -> None:
    """Print the table, and what was measured."""
    listed, grid = result['independent'].values()
    labels = dict(
        full=f'the full network alone, {result["full"]}',
        closed_form='mutual learning, Eq. 2 in closed form',
        expected='mutual learning, expected from the rounded channels',
        listed=f'each alone: {len(listed)} networks, those of test_cfg',
        grid=f'each alone: {len(grid)} networks, the grid of a query table',
    )
    table = Table(
        title='Forward passes for one training image',
        caption=f'test_cfg: {", ".join(listed)}',
    )
    table.add_column('trained')
    table.add_column('MACs', justify='right')
    table.add_column('ratio', justify='right')
    for name, label in labels.items():
        table.add_row(
            label,
            f'{result["macs"][name] / 1e6:,.1f} M',
            f'{result["ratio"][name]:.2f}',
        )
    Console().print(table)
    if 'measured' in result:
        times = result['measured']
        print(
            f'Measured on {times["machine"]}, batches of '
            f'{times["batch_size"]}: an iteration takes '
            f'{times["mutual"]:.3f} s, of the full network alone '
            f'{times["full"]:.3f} s (medians of {times["pairs"]}).\n'
            f'Median ratio {times["ratio"]:.2f}, that of the MACs of the same '
            f'subnets {times["macs_ratio"]:.2f}.'
        )


def main() -> None:
    args = parse_args()
    torch.set_flush_denormal(True)  # of a fresh network's gradients on a CPU
    # Standard output is the result's alone: stock code logs there, too.
    with one_line_errors(), redirect_stdout(sys.stderr):
        result = count(args)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == '__main__':
    main()
