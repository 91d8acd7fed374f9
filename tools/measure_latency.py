#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Measure every subnet of a table on the device at hand; extend the table.

Latencies are of a prepared batch, of videos with one view each: resizing, the
network and what its heads do with the outputs; reading files and preprocessing
cost the same at every subnet. They go into ADAPTIVE and into the table.json
and table.csv beside it, under a name, so that one table can hold several
devices.
"""

import re
import sys
from contextlib import redirect_stdout

import torch
from rich.console import Console
from rich.table import Table

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveModel, measure_latencies
from mutualnet_mm.cli import add_device, one_line_errors, tool_parser
from mutualnet_mm.cost import machine_name
from mutualnet_mm.deploy import check_writable, save_latencies
from mutualnet_mm.progress_bars import track


def parse_args():
    parser = tool_parser(__doc__)
    parser.add_argument('adaptive', help='adaptive.pth of mutualnet table')
    add_device(parser)
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
        help='what the table calls this device, default: such as cpu-t2-b1, '
        'which tells neither processors nor --inputs apart',
    )
    return parser.parse_args()


def measure(args) -> tuple:
    """Return the network and the latencies of its subnets."""
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
    return net, found


def default_name(args, device: torch.device) -> str:
    """Name a device by the model of a GPU and by what options change.

    The model of a processor is not in it, nor what ``--inputs`` are.
    """
    parts = [str(device)]
    if device.type == 'cuda':  # whose number says nothing
        parts = re.findall(r'\w+', machine_name(str(device)))
    elif device.type == 'cpu':
        parts.append(f't{torch.get_num_threads()}')
    parts.append(f'b{args.batch_size}')
    if args.static:
        parts.append('static')
    return '-'.join(parts)


def show(table, name: str, machine: str, entries: list) -> None:
    """Print the latencies of some subnets."""
    view = Table(title=f'{name}: {machine}', caption='milliseconds of a batch')
    for label in ('subnet', 'median', 'p90', 'MMACs', table.metric):
        view.add_column(label, justify='right', no_wrap=True)
    for entry in entries:
        latency, score = entry.latency_ms[name], table.score(entry)
        view.add_row(
            str(entry.subnet),
            f'{latency.median:.2f}',
            f'{latency.p90:.2f}',
            f'{entry.macs / 1e6:,.2f}',
            '-' if score is None else f'{score:.4g}',
        )
    Console().print(view)


def main() -> None:
    args = parse_args()
    # Standard output is the table's alone: stock code logs there, too.
    with one_line_errors(), redirect_stdout(sys.stderr):
        net, found = measure(args)
    name = args.name or default_name(args, net.device)
    machine = machine_name(args.device)
    with one_line_errors():
        try:
            table = save_latencies(
                args.adaptive, name, found, net.file.weights
            )
        except UsageError:
            # All of them: they are written nowhere.
            table = net.table.with_latencies(name, found)
            measured = [e for e in table.entries if e.subnet in found]
            show(table, name, machine, measured)
            raise
    show(table, name, machine, table.pareto_by('latency_ms', name))
    done = f'{len(found)} of {len(net.table.entries)} subnets'
    if len(found) < len(net.table.entries):
        sys.exit(
            f'interrupted: {done} were measured, which {args.adaptive!r} '
            f'keeps as {name!r}: measure again for all of them'
        )
    print(f'{done} measured')


if __name__ == '__main__':
    main()
