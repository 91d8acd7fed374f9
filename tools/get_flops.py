#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Count multiply-accumulates and parameters of subnets; no data needed.

All sizes are those that the test pipeline delivers. Detectors: MACs are those
of backbone and neck. The heads are listed apart, with MACs for single-stage
detectors only: behind proposals they depend on how many there are.
Recognizers: MACs are those of one view, and of all views of a video.
"""

import json
import sys
from contextlib import redirect_stdout

from rich.console import Console
from rich.table import Table

from mutualnet_mm.apis import build_model, load_config
from mutualnet_mm.cli import add_image_shape, config_parser, one_line_errors
from mutualnet_mm.config import find_views
from mutualnet_mm.cost import SubnetCosts, warn_of_equal_sizes
from mutualnet_mm.models.build import listed_subnets
from mutualnet_mm.progress_bars import track


def parse_args():
    parser = config_parser(__doc__)
    parser.add_argument(
        '--subnet',
        nargs='+',
        metavar='SUBNET',
        help="such as 1.0x-224 0.7x-160; default: test_cfg's, "
        'else the full and the smallest',
    )
    add_image_shape(
        parser,
        "view of a video for the full network, default: the test pipeline's",
    )
    parser.add_argument(
        '--json', action='store_true', help='print JSON instead of a table'
    )
    return parser.parse_args()


def count(args) -> list:
    """Cost of each subnet, one dict each."""
    cfg = load_config(
        args.config, args.cfg_options, launcher='none', stages=()
    )
    model = build_model(cfg)
    views = find_views(cfg, args.image_shape)
    rows = []
    subnets = args.subnet or listed_subnets(cfg, model)
    subnets = list(map(model.space.check, subnets))
    warn_of_equal_sizes(model, subnets, views.shape)
    costs = SubnetCosts(model, views.shape)
    for subnet in track(subnets, 'counting'):
        cost = costs.of(subnet)
        shape = model.task.input_shape(model, subnet, views.shape)
        row = dict(
            subnet=str(subnet),
            width=subnet.width,
            resolution=subnet.resolution,
            frames=subnet.frames,
            input_shape=list(shape[1:]),
            macs=cost['macs'],
            params=cost['params'],
        )
        if views.number is not None:
            row.update(
                input_shape=list(shape[-4:]),  # of one view
                views=views.number,
                video_macs=views.number * row['macs'],
            )
        if costs.head_params is not None:
            row.update(
                head_macs=cost['head_macs'], head_params=costs.head_params
            )
        rows.append(row)
    return rows


def show(rows: list) -> None:
    """Print the table."""
    columns = {'macs': 'MACs'}
    caption = None
    if 'views' in rows[0]:
        columns.update(views='views', video_macs='MACs x views')
    columns.update(params='params')
    if 'head_params' in rows[0]:
        columns.update(head_macs='head MACs', head_params='head params')
        caption = 'MACs of backbone and neck; params of the whole model'
        if any(row['head_macs'] is None for row in rows):
            caption += '; -: depends on the proposals'
    table = Table(caption=caption)
    for label in ('subnet', 'input', *columns.values()):
        table.add_column(label, justify='right', no_wrap=True)
    for row in rows:
        # For images without the channels.
        shape = row['input_shape'][0 if 'views' in row else 1 :]
        table.add_row(
            row['subnet'],
            ' x '.join(map(str, shape)),
            *(
                str(row[name]) if name == 'views' else short(row[name])
                for name in columns
            ),
        )
    Console().print(table)


def short(number) -> str:
    """Write 568790528 as ``568.79 M``, and what is not known as a dash."""
    if number is None:
        return '-'
    sizes = zip('GMK', (1e9, 1e6, 1e3))
    unit, size = next(((u, s) for u, s in sizes if number >= s), (' ', 1))
    return f'{number / size:.2f} {unit}'


def main() -> None:
    args = parse_args()
    # Standard output is the table's alone: stock code logs there, too.
    with one_line_errors(), redirect_stdout(sys.stderr):
        rows = count(args)
    if args.json:
        print(json.dumps(dict(subnets=rows), indent=2))
    else:
        show(rows)


if __name__ == '__main__':
    main()
