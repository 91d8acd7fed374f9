#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Measure every subnet of a table on the device at hand; extend the table.

Latencies are of a prepared batch, of videos with one view each: resizing, the
network and what its heads do with the outputs; reading files and preprocessing
cost the same at every subnet. They go into ADAPTIVE and into the table.json
and table.csv beside it, under a name, so that one table can hold several
devices. Several devices of one kind share the subnets: --shard 1/4 to 4/4,
each in a process of its own, with all other options alike, or one command by
torchrun, srun or mpirun. The last one to finish writes the figures of all;
interrupted, a part goes on where it stopped. --throughput and --energy measure
images per second and millijoules of an image as well, for budgets of them.
"""

import re
import sys
from contextlib import redirect_stdout
from typing import Optional

import torch
from mmengine.dist import infer_launcher
from rich.console import Console
from rich.table import Table

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveModel, measure_latencies
from mutualnet_mm.cli import add_device, one_line_errors, tool_parser
from mutualnet_mm.config.launchers import launched_shard, use_local_gpu
from mutualnet_mm.cost import machine_name
from mutualnet_mm.deploy import LatencyPart, check_writable, save_latencies
from mutualnet_mm.progress_bars import track
from mutualnet_mm.query_table import QueryTable
from mutualnet_mm.shards import Shard


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
        '--throughput',
        type=int,
        nargs='+',
        default=[],
        metavar='BATCH',
        help='measure images per second at these batch sizes, too, and keep '
        'the best of them and of --batch-size for each subnet',
    )
    parser.add_argument(
        '--energy',
        action='store_true',
        help='measure the energy of an image, too, two seconds for each '
        'subnet: of the processor where Linux tells it (RAPL), of an NVIDIA '
        'GPU by nvidia-ml-py; of all that runs there, so nothing else may',
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
    parser.add_argument(
        '--shard',
        metavar='PART',
        help='which part of the subnets, such as 3/8; default: by the rank '
        'of the process that torchrun, srun or mpirun started, else all',
    )
    return parser.parse_args()


def set_part(args) -> None:
    """Find out which part to measure, and on which device."""
    launcher = infer_launcher()
    if args.shard is None:
        args.shard = launched_shard(launcher)
        if args.shard is not None and args.device == 'cuda':
            use_local_gpu(launcher)
    else:
        args.shard = Shard.parse(args.shard)
    if args.shard is not None and args.shard.number == 1:
        args.shard = None


def measure(args) -> tuple:
    """Return the network and the latencies of its subnets.

    Of a part of them, there are none until the other parts have finished.
    """
    if args.threads is not None:
        if args.threads < 1:
            raise UsageError(f'--threads {args.threads}: use 1 or more')
        torch.set_num_threads(args.threads)
    net = AdaptiveModel.from_file(args.adaptive, args.device)
    check_writable(args.adaptive)
    if args.static:
        net.make_static(limit=1)
    given = net, args.batch_size, args.repeats, args.inputs
    more = dict(throughput=args.throughput, energy=args.energy)

    def shown(subnets):
        return track(subnets, 'measuring')

    if args.shard is not None:
        return net, measure_part(args, given, more, shown)
    found = measure_latencies(*given, track=shown, **more)
    if not found:
        sys.exit('interrupted before the first subnet was measured')
    return net, found


def measure_part(
    args, given: tuple, more: dict, shown
) -> Optional[QueryTable]:
    """Measure the rest of a part; merge it with the others if it is last."""
    net = given[0]
    settings = dict(
        machine=machine_name(args.device),
        static=args.static,
        repeats=args.repeats,
        inputs=args.inputs,
        # None is what parts of an earlier release say.
        throughput=args.throughput or None,
        energy=args.energy or None,
        **{'batch size': args.batch_size},
    )
    part = LatencyPart(
        args.adaptive,
        args.name or default_name(args, net.device),
        args.shard,
        net.table,
        net.file.weights,
        settings,
    )
    with part.measuring():
        left = len(part.subnets)
        if left:
            found = measure_latencies(
                *given,
                track=shown,
                subnets=part.subnets,
                keep=part.keep,
                **more,
            )
            if len(found) < left:
                sys.exit('interrupted: the same command goes on from here')
    return part.merge()


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


def _cell(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:,.1f}'


def show(table, name: str, machine: str, entries: list) -> None:
    """Print the latencies of some subnets."""
    view = Table(title=f'{name}: {machine}', caption='milliseconds of a batch')
    figures = [entry.latency_ms[name] for entry in entries]
    columns = ['subnet', 'median', 'p90']
    if any(f.images_per_second for f in figures):
        columns += ['images/s', 'in batches of']
    if any(f.energy_mj for f in figures):
        columns.append('mJ an image')
    for label in (*columns, 'MMACs', table.metric):
        view.add_column(label, justify='right', no_wrap=True)
    for entry, latency in zip(entries, figures):
        score = table.score(entry)
        cells = {
            'subnet': str(entry.subnet),
            'median': f'{latency.median:.2f}',
            'p90': f'{latency.p90:.2f}',
            'images/s': _cell(latency.images_per_second),
            'in batches of': str(latency.best_batch or '-'),
            'mJ an image': _cell(latency.energy_mj),
        }
        view.add_row(
            *(cells[label] for label in columns),
            f'{entry.macs / 1e6:,.2f}',
            '-' if score is None else f'{score:.4g}',
        )
    Console().print(view)


def main() -> None:
    args = parse_args()
    # Standard output is the table's alone: stock code logs there, too.
    with one_line_errors(), redirect_stdout(sys.stderr):
        set_part(args)
        net, found = measure(args)
    name = args.name or default_name(args, net.device)
    machine = machine_name(args.device)
    if args.shard is not None:
        if found is None:
            print(
                f'part {args.shard} is measured, others are not: the last '
                f'one writes the figures into {args.adaptive!r}'
            )
            return
        show(found, name, machine, found.pareto_by('latency_ms', name))
        print(f'{len(found.entries)} of {len(found.entries)} subnets measured')
        return
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
