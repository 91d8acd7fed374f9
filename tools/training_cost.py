#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Compare the cost of mutual learning with that of independent networks.

Counted are the multiply-accumulates of the forward passes for one training
image or clip (the paper's Tables 3 and 4); the backward passes take about
twice as many in every row. Eq. 2 takes them as proportional to width^2 x
resolution^2, Eq. 9 to that times the frames. A detector's are those of
backbone and neck. For video the other ways to sample the subnets of a step
follow that of the config. Where the full network learns alone at first
(mutual.start), counts are the mean over the whole training, and what is
measured are the later steps, of all subnets. A teacher that is none of them
(mutual.teacher) has no backward pass: it counts a third of its forward pass.
"""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import lru_cache, partial

from rich.console import Console
from rich.table import Table

from mutualnet_mm import Subnet
from mutualnet_mm.apis import build_model, load_config
from mutualnet_mm.cli import add_image_shape, config_parser, one_line_errors
from mutualnet_mm.config import find_views, takes_clips
from mutualnet_mm.cost import (
    MacsByWidth,
    closed_form_ratio,
    expected_macs,
    measure_steps,
    teacher_macs,
    ways_of_sampling,
)
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.models.build import listed_subnets
from mutualnet_mm.progress_bars import track


def parse_args():
    parser = config_parser(__doc__)
    parser.add_argument(
        '--measure',
        action='store_true',
        help='also time training iterations of mutual learning and of the '
        'full network alone on a batch of train_dataloader',
    )
    add_image_shape(
        parser,
        'clip of a video for the full network, default: the full resolution',
    )
    parser.add_argument(
        '--json', action='store_true', help='print JSON instead of a table'
    )
    return parser.parse_args()


def count(args) -> dict:
    """All figures, absolute and relative to the full network's."""
    shape = args.image_shape
    cfg = load_config(
        args.config,
        args.cfg_options,
        launcher='none',
        stages=('train',) if args.measure else (),
    )
    if not takes_clips(cfg):
        shape = find_views(cfg, shape).shape
    # First, since it is what may fail.
    times = (
        measure_steps(cfg, track=partial(track, description='Timing'))
        if args.measure
        else None
    )
    counting = partial(track, description='Counting')
    model = build_model(cfg)
    macs = MacsByWidth(model, shape)
    full = macs(model.space.full)
    ways = ways_of_sampling(model.sampler)
    if teacher_macs(model, shape):
        ways = {f'{name}, and a teacher': way for name, way in ways.items()}
    expected = expected_macs(model, list(ways.values()), shape, counting, macs)
    listed, grid = (
        {str(s): macs(s) for s in counting(subnets)}
        for subnets in (listed_subnets(cfg, model), model.space.grid())
    )

    @lru_cache(maxsize=None)
    def teacher(size: Subnet) -> float:
        return teacher_macs(model, shape, size) / full

    def relative(**macs: float) -> dict:
        ratio = {name: number / full for name, number in macs.items()}
        return dict(macs=macs, ratio=ratio)

    others = {
        name: relative(
            closed_form=full * closed_form_ratio(way, teacher),
            expected=number,
        )
        for (name, way), number in zip(ways.items(), expected)
    }
    sampling = next(iter(ways))
    result = dict(
        full=str(model.space.full),
        input=model.task.input_shape(model, model.space.full, shape)[-2:],
        sampling=sampling,
        independent=dict(listed=listed, grid=grid),
        **relative(
            full=full,
            **others.pop(sampling)['macs'],
            listed=sum(listed.values()),
            grid=sum(grid.values()),
        ),
        other_sampling=others,
    )
    if times is not None:
        result['measured'] = asdict(times)
    return result


def show(result: dict) -> None:
    """Print the table, and what was measured."""
    listed, grid = result['independent'].values()
    video = Subnet.parse(result['full']).frames is not None
    height, width = result['input']
    closed_form = f'Eq. {9 if video else 2} in closed form'
    rows = [(f'the full network alone, {result["full"]}', 'full', result)]
    ways = {result['sampling']: result, **result['other_sampling']}
    for way, numbers in ways.items():
        rows += [
            (f'{way}, {closed_form}', 'closed_form', numbers),
            (f'{way}, from the rounded channels', 'expected', numbers),
        ]
    for name, networks, what in (
        ('listed', listed, 'those of test_cfg'),
        ('grid', grid, 'the grid of a query table'),
    ):
        number = f'{len(networks)} network{"s" * (len(networks) > 1)}'
        rows.append((f'each alone: {number}, {what}', name, result))
    table = Table(
        title=f'Forward passes for one training {"clip" if video else "image"}'
        f' of {height} x {width} pixels',
        caption=f'config: {result["sampling"]}; test_cfg: {", ".join(listed)}',
    )
    table.add_column('trained')
    table.add_column('MACs', justify='right')
    table.add_column('ratio', justify='right')
    # One unit for all, so that they compare at a glance.
    unit, size, digits = (
        ('G', 1e9, 2) if result['macs']['full'] >= 1e9 else ('M', 1e6, 1)
    )
    for label, name, numbers in rows:
        table.add_row(
            label,
            f'{numbers["macs"][name] / size:,.{digits}f} {unit}',
            f'{numbers["ratio"][name]:.2f}',
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
    prepare_cpu()
    # Standard output is the result's alone: stock code logs there, too.
    with one_line_errors(), redirect_stdout(sys.stderr):
        result = count(args)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == '__main__':
    main()
