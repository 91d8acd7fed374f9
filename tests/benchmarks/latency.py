"""Latency of the execution modes, as ratios in one run on this machine.

    python tests/benchmarks/latency.py [--device cuda] [--plot PNG]

Measured for MobileNetV1, ResNet-50 and Slow 8x8 R50: how long a switch takes,
static and sliced subnets against the stock class built narrow, and
latency against multiply-accumulates over the grid. What is compared runs in
turn, in a new order each round. Weights and images are random. Tables are
printed as Markdown, progress goes to standard error.
"""

import argparse
import copy
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Dict, List

import torch
from latency_networks import NETWORKS, Subject, fuse
from latency_report import plot_grid, report
from latency_switching import measure_switching
from latency_timing import Calls, ratio, take_turns

from mutualnet_mm import Subnet
from mutualnet_mm.apis import count_macs
from mutualnet_mm.cost import machine_name
from mutualnet_mm.deploy.switchable import SwitchableNetwork
from mutualnet_mm.models import static_model

# Seconds of a comparison and of a point of the grid at most, but for a few
# rounds.
COMPARISON, POINT = 45, 3
# What is divided by what.
RATIOS = {
    'stock / itself': ('stock again', 'stock'),
    'static / stock': ('static', 'stock'),
    'fused / stock fused': ('fused', 'stock fused'),
    'sliced / stock': ('sliced', 'stock'),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--threads', type=int, help='of PyTorch')
    parser.add_argument('--batch-size', type=int, nargs='+', default=[1, 8])
    parser.add_argument(
        '--networks',
        nargs='+',
        choices=NETWORKS,
        default=[k for k, v in NETWORKS.items() if find_spec(v.project)],
        help='all whose project is installed if not given',
    )
    parser.add_argument('--repeats', type=int, default=30, help='rounds')
    parser.add_argument(
        '--step', type=float, default=0.25, help='of widths in the grid'
    )
    parser.add_argument('--json', type=Path, help='write all figures')
    parser.add_argument('--plot', type=Path, help='draw latency against MACs')
    return parser.parse_args()


@torch.no_grad()
def measure_pair(
    subject: Subject, subnet: Subnet, size: int, rounds: int
) -> List[dict]:
    """Time a subnet in each mode, and the stock class built narrow.

    ``predict`` takes a preprocessed batch of the full resolution and resizes
    it, ``network`` is the bare pass at the subnet's own size.
    """
    stocks = {'stock': subject.build_stock(subnet)}
    stocks['stock again'] = copy.deepcopy(stocks['stock'])
    stocks['stock fused'] = fuse(stocks['stock'])
    modes = {
        name: SwitchableNetwork(subject.model, subject.bank)
        for name in ('sliced', 'static', 'fused')
    }
    modes['static'].make_static(subnet, fuse_bn=False)
    modes['fused'].make_static(subnet)
    inputs, samples = subject.batch(size)
    resized = subject.resize(inputs, subnet)
    predict: Calls = {}
    network: Calls = {}
    for name, stock in stocks.items():
        own = [sample.new() for sample in samples]  # it writes into them
        predict[name] = lambda stock=stock, own=own: stock(
            subject.resize(inputs, subnet), own, mode='predict'
        )
        network[name] = lambda stock=stock: subject.run(stock, resized)
    for name, net in modes.items():
        net.use(subnet)
        predict[name] = lambda net=net: net.predict(inputs, samples)
        # What ``predict`` runs, without what surrounds it.
        bare = net.model
        if name != 'sliced':
            bare = static_model(
                subject.model, subnet, net.statistics(subnet), name == 'fused'
            )
        network[name] = lambda bare=bare: subject.run(bare, resized)
    check_agreement(
        {
            name: torch.stack([sample.pred_score for sample in call()])
            for name, call in predict.items()
        }
    )
    check_agreement({name: call() for name, call in network.items()})
    rows = []
    for way, calls in (('predict', predict), ('network', network)):
        times = take_turns(calls, rounds, COMPARISON)
        rows.append(
            dict(
                subnet=str(subnet),
                batch_size=size,
                call=way,
                rounds=len(times['stock']),
                ms={name: 1e3 * median(t) for name, t in times.items()},
                ratios={
                    name: ratio(times[above], times[below])
                    for name, (above, below) in RATIOS.items()
                },
            )
        )
    return rows


def check_agreement(outputs: Dict[str, torch.Tensor]) -> None:
    """Refuse to compare networks that do not compute the same."""
    expected = outputs['stock']
    # TensorFloat-32, the default of convolutions, has ten bits.
    bound = 1e-2 if expected.is_cuda else 1e-3
    for name, output in outputs.items():
        error = (output - expected).abs().max() / expected.abs().max()
        assert error < bound, f'{name} is off by {error:.1e}'


def measure_grid(
    subject: Subject, step: float, sizes: List[int], rounds: int
) -> List[dict]:
    """Time ``predict`` of every subnet, static with folded norms."""
    net = SwitchableNetwork(subject.model, subject.bank)
    net.make_static(limit=1)
    batches = {size: subject.batch(size) for size in sizes}
    rows = []
    for subnet in subject.model.space.grid(step):
        net.use(subnet)
        row = dict(subnet=str(subnet), macs=count_macs(subject.model, subnet))
        row['ms'] = {
            size: 1e3
            * median(
                take_turns(
                    {'': lambda batch=batch: net.predict(*batch)},
                    rounds,
                    POINT,
                )['']
            )
            for size, batch in batches.items()
        }
        rows.append(row)
    return rows


def measure(name: str, args: argparse.Namespace) -> dict:
    """Measure one network."""
    start = perf_counter()

    def progress(what: str) -> None:
        print(
            f'{name}: {what} after {perf_counter() - start:.0f} s',
            file=sys.stderr,
            flush=True,
        )

    subject = Subject(NETWORKS[name], args.device)
    space = subject.model.space
    pairs = [Subnet.parse(subnet) for subnet in subject.network.pairs]
    others = dict.fromkeys([*pairs, *space.grid(args.step)])
    others.pop(space.full, None)  # it has its running statistics
    subject.calibrate(list(others))
    progress('built and calibrated')
    found = dict(switching=measure_switching(subject, args.repeats), pairs=[])
    progress('switching measured')
    for subnet in pairs:
        for size in args.batch_size:
            found['pairs'] += measure_pair(subject, subnet, size, args.repeats)
            progress(f'{subnet} at batch {size} compared')
    found['grid'] = measure_grid(
        subject, args.step, args.batch_size, args.repeats
    )
    progress('grid measured')
    return found


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    if args.threads:
        torch.set_num_threads(args.threads)
    found = dict(
        machine=machine_name(args.device),
        torch=torch.__version__,
        batch_sizes=args.batch_size,
        networks={name: measure(name, args) for name in args.networks},
    )
    print(report(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    if args.plot:
        plot_grid(found, args.plot)


if __name__ == '__main__':
    main()
