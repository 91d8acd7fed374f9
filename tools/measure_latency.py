#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Measure every subnet of a table on the device at hand; extend the table.

Latencies are of a prepared batch: resizing, the network and what its heads do
with the outputs; reading files and preprocessing cost the same at every
subnet. They go into ADAPTIVE and into the table.json and table.csv beside it,
under a name, so that one table can hold several devices.
"""

import sys

import torch
from rich.console import Console
from rich.table import Table

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveModel, measure_latencies
from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.cost import machine_name
from mutualnet_mm.deploy import check_writable, save_latencies
from mutualnet_mm.progress_bars import track


def parse_args():
    parser = tool_parser(__doc__)
    parser.add_argument('adaptive', help='adaptive.pth of build_table')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument(
        '--batch-size', type=int, default=1, help='default: %(default)s'
    )
    parser.add_argument(
        '--threads', type=int, help="of the CPU, default: PyTorch's own"
    )
    parser.add_argument(
        '--static',
        action='store_true',
        help='measure subnets with weights of their own and folded batch '
        'norms, as after AdaptiveModel.make_static()',
    )
    parser.add_argument(
        '--repeats',
        type=int,
        default=30,
        help='timed runs of each subnet, default: %(default)s',
    )
    parser.add_argument(
        '--inputs',
        nargs='+',
        metavar='FILE',
        help='images or videos to run on, default: noise',
    )
    parser.add_argument(
        '--name',
        help='what the table calls this device, default: such as cpu-t2-b1',
    )
    return parser.parse_args()


def measure(args) -> tuple:
    """Return the table with its latencies, and what it calls the device."""
    if args.threads is not None:
        if args.threads < 1:
            raise UsageError(f'--threads {args.threads}: use 1 or more')
        torch.set_num_threads(args.threads)
    net = AdaptiveModel.from_file(args.adaptive, args.device)
    check_writable(args.adaptive)
    if args.static:
        net.make_static(limit=1)
    found = measure_latencies(
        net,
        args.batch_size,
        args.repeats,
        args.inputs,
        track=lambda subnets: track(subnets, 'measuring'),
    )
    if not found:
        sys.exit('interrupted before the first subnet was measured')
    name = args.name or default_name(args, net.device)
    return save_latencies(args.adaptive, name, found), name


def default_name(args, device: torch.device) -> str:
    """Name a device by all that the figures depend on."""
    parts = [str(device)]
    if device.type == 'cpu':
        parts.append(f't{torch.get_num_threads()}')
    parts.append(f'b{args.batch_size}')
    if args.static:
        parts.append('static')
    return '-'.join(parts)


def show(table, name: str, machine: str) -> None:
    """Print the best subnets for some latency."""
    view = Table(title=f'{name}: {machine}', caption='milliseconds of a batch')
    for label in ('subnet', 'median', 'p90', 'MMACs', table.metric):
        view.add_column(label, justify='right', no_wrap=True)
    for entry in table.pareto_by('latency_ms', name):
        latency = entry.latency_ms[name]
        view.add_row(
            str(entry.subnet),
            f'{latency.median:.2f}',
            f'{latency.p90:.2f}',
            f'{entry.macs / 1e6:,.2f}',
            f'{table.score(entry):.4g}',
        )
    Console().print(view)


def main() -> None:
    args = parse_args()
    with one_line_errors():
        table, name = measure(args)
    show(table, name, machine_name(args.device))
    measured = sum(name in entry.latency_ms for entry in table.entries)
    print(f'{measured} of {len(table.entries)} subnets measured')


if __name__ == '__main__':
    main()
