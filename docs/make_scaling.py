#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Write the tables and the figure of docs/scaling.md from what was measured.

python docs/make_scaling.py

What the machine at hand gives lies in docs/results/scaling, written by
`mutualnet benchmark scale`, `grow` and `loading` with --json; what larger ones
give is computed from it and from the assumptions below.
"""

import json
import re
from pathlib import Path
from typing import Dict, List, NamedTuple

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / 'scaling.md'
FOLDER = DOCS / 'results/scaling'
FIGURE = DOCS / 'results/scaling.png'
_TABLE = re.compile(r'(<!-- (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)

NUMBERS = (8, 16, 32, 64, 128, 256)
PER_NODE = 8
# Bytes per second that an accelerator's neighbour in the ring is sent: inside
# of a node, and by networks of 25, 100 and 400 Gbit/s that a node shares.
INSIDE = 100e9
NETWORKS = {25: 25e9 / 8, 100: 100e9 / 8, 400: 400e9 / 8}
HOP = 10e-6  # seconds that a message takes, however short it is


class Job(NamedTuple):
    """A training of the paper on accelerators.

    Args:
        title (str): What it is.
        network (str): Name of its files in the folder.
        batch (int): Images or clips of an accelerator.
        speed (float): Of the stock full network in training, images or clips
            per second and accelerator: an assumption.
        arithmetic (float): What a step takes, relative to the full network's,
            as the head of its config says.
        count (int): Training images or clips.
        cores (int): Of the processor, for each accelerator: an assumption.
    """

    title: str
    network: str
    batch: int
    speed: float
    arithmetic: float
    count: int
    cores: int


JOBS = (
    Job('ResNet-50 on ImageNet', 'resnet50', 64, 1200, 2.26, 1_281_167, 12),
    Job('Slow 8x8 on Kinetics-400', 'slow', 8, 60, 1.65, 240_000, 12),
)


def read(name: str) -> dict:
    """What a benchmark wrote."""
    return json.loads((FOLDER / f'{name}.json').read_text(encoding='utf-8'))


def all_reduce(
    number: int, size: float, reductions: int, rate: float
) -> float:
    """Seconds of the ring all-reduce of a step.

    Each accelerator sends (n - 1) / n of all bytes twice, in 2 (n - 1)
    messages for each reduction.

    Args:
        number (int): Accelerators, n.
        size (float): Bytes of one.
        reductions (int): In how many parts they are reduced.
        rate (float): Bytes per second of the slowest link of the ring.
    """
    hops = 2 * (number - 1)
    return hops / number * size / rate + hops * HOP * reductions


def overhead(job: Job) -> float:
    """How much longer than its arithmetic says a step takes, measured."""
    found = read(job.network)
    ms, settings = found['milliseconds'], found['settings']
    times = ms['processor, mutual, 1'] / ms['processor, full, 1']
    return times / settings['arithmetic']


def step_seconds(job: Job) -> float:
    """Seconds of a mutual step on one accelerator, without reductions."""
    return job.batch / job.speed * job.arithmetic * overhead(job)


def waited(job: Job, number: int, gigabits: int) -> float:
    """Seconds of the reductions of a step."""
    settings = read(job.network)['settings']
    rate = INSIDE if number <= PER_NODE else min(INSIDE, NETWORKS[gigabits])
    return all_reduce(
        number,
        settings['bytes']['mutual'],
        settings['reductions']['mutual'],
        rate,
    )


def loaded_per_second(job: Job) -> float:
    """Images or clips that the cores of one accelerator load."""
    one = read(f'loading_{job.network}')['settings']['milliseconds_of_one']
    return job.cores * 1000 / one


def table(head: List[str], rows: List[list]) -> str:
    """Markdown."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def reduced() -> str:
    """What one process hands over in a step."""
    rows = []
    for name, title in (
        ('mobilenet_v1', 'MobileNetV1'),
        ('resnet50', 'ResNet-50'),
        ('slow', 'Slow 8x8'),
    ):
        settings = read(name)['settings']
        rows.append(
            [
                title,
                f'{len(settings["plan"])}',
                f'{settings["bytes"]["mutual"]:,}',
                f'{settings["bytes"]["full"]:,}',
                settings['reductions']['mutual'],
                settings['reductions']['full'],
            ]
        )
    return table(
        [
            'network',
            'subnets of a step',
            'bytes, mutual',
            'bytes, full network alone',
            'reductions, mutual',
            'alone',
        ],
        rows,
    )


def checked() -> str:
    """Steps on 1, 2 and 4 processes, measured and predicted."""
    rows = []
    for name, title in (
        ('mobilenet_v1', 'MobileNetV1'),
        ('resnet50', 'ResNet-50'),
        ('slow', 'Slow 8x8'),
    ):
        found = read(name)
        ms = found['milliseconds']
        ratios = {one['what']: one for one in found['ratios']}
        for kind in ('mutual', 'full'):
            numbers = [
                int(key.rpartition(' ')[2])
                for key in ms
                if key.startswith(f'step, {kind}, ')
            ]
            for number in numbers:
                one = ratios.get(f'{kind} step of {number} / predicted')
                told = ''
                if one is not None:
                    told = f'{one["value"]:.2f}'
                    if found['rounds'] > 1:
                        told += f' ({one["low"]:.2f} to {one["high"]:.2f})'
                rows.append(
                    [
                        f'{title}, {kind}',
                        found['settings']['batch_size'],
                        number,
                        f'{ms[f"processor, {kind}, {number}"]:,.0f}',
                        f'{ms[f"step, {kind}, {number}"]:,.0f}',
                        f'{ms[f"alone, {kind}, {number}"]:,.0f}',
                        f'{ms[f"reduction, {kind}, {number}"]:,.1f}',
                        told,
                    ]
                )
    return table(
        [
            'network',
            'batch of each',
            'processes',
            'processor time of a step, ms',
            'step, ms',
            'without reductions, ms',
            'bare reductions, ms',
            'step / predicted',
        ],
        rows,
    )


def assumptions() -> str:
    """What is not measured here."""
    rows = [
        [
            f'training speed of the stock full network, {job.title}',
            f'{job.speed:,.0f} a second and accelerator, batch {job.batch}',
        ]
        for job in JOBS
    ]
    rows += [
        [
            f'a mutual step of {job.title}',
            f'{job.arithmetic} times its arithmetic (config), '
            f'x {overhead(job):.2f} (measured on this CPU)',
        ]
        for job in JOBS
    ]
    rows += [
        [
            f'accelerators of a node, {INSIDE / 1e9:.0f} GB/s between them',
            PER_NODE,
        ],
        [
            'network of a node, each direction',
            ', '.join(map(str, NETWORKS)) + ' Gbit/s, all of which is used',
        ],
        ['a message', f'{1e6 * HOP:.0f} microseconds at least'],
        ['cores for each accelerator', f'{JOBS[0].cores}, all of them load'],
        ['batch of an accelerator', 'stays, so that of a step grows'],
    ]
    return table(['assumption', 'value'], rows)


def larger() -> str:
    """What more accelerators give."""
    parts = []
    for job in JOBS:
        alone = step_seconds(job)
        rows = []
        for number in NUMBERS:
            row: list = [number, f'{number * job.batch:,}']
            for gigabits in NETWORKS:
                step = alone + waited(job, number, gigabits)
                row.append(f'{1000 * step:,.0f} ({100 * alone / step:.0f} %)')
            step = alone + waited(job, number, 100)
            hours = job.count / (number * job.batch) * step / 3600
            row.append(f'{60 * hours:,.1f}')
            rows.append(row)
        head = ['accelerators', 'batch of all']
        head += [f'{g} Gbit/s: step, ms (efficiency)' for g in NETWORKS]
        head += ['epoch at 100 Gbit/s, minutes']
        parts += [f'**{job.title}**', '', table(head, rows), '']
    return '\n'.join(parts).rstrip()


def loading() -> str:
    """Where loading becomes the limit."""
    rows = []
    for job in JOBS:
        found = read(f'loading_{job.network}')['settings']
        per_core = 1000 / found['milliseconds_of_one']
        used = job.batch / step_seconds(job)
        rows.append(
            [
                job.title,
                f'{found["milliseconds_of_one"]:.1f}',
                f'{found["bytes_of_a_file"] / 1000:,.0f}',
                f'{used:,.0f}',
                f'{used / per_core:.1f}',
                f'{job.speed / per_core:.1f}',
                f'{job.cores * per_core:,.0f}',
                f'{256 * used * found["bytes_of_a_file"] / 1e9:.1f}',
            ]
        )
    return table(
        [
            'training',
            'ms of a core for one',
            'kB of a file here',
            'used by an accelerator, per second',
            'cores that takes',
            'cores for the stock network',
            f'loaded by {JOBS[0].cores} cores, per second',
            'GB/s read by 256 accelerators',
        ],
        rows,
    )


TABLES = dict(
    reduced=reduced,
    checked=checked,
    assumptions=assumptions,
    larger=larger,
    loading=loading,
)


def write_page() -> str:
    """Return the text of the page with its tables as they should be."""
    return _TABLE.sub(
        lambda m: f'{m[1]}\n{TABLES[m[2]]()}\n\n{m[3]}',
        PAGE.read_text(encoding='utf-8'),
    )


def growth(what: str) -> Dict[int, float]:
    """Milliseconds by how much there is of something."""
    found = read('grow')['milliseconds'].items()
    return {
        int(name.rpartition(', ')[2]): ms
        for name, ms in found
        if name.startswith(f'{what}, ')
    }


def draw() -> None:
    """Draw how costs grow."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 5, figsize=(13, 2.8), layout='constrained')
    for axis, what, label in zip(
        axes,
        ('step, subnets', 'step, images', 'step, side', 'table, subnets'),
        (
            'subnets of a step',
            'images of a step',
            'side of an image in pixels',
            'subnets of a table',
        ),
    ):
        points = growth(what)
        axis.plot(list(points), [ms / 1000 for ms in points.values()], 'o-')
        if what == 'step, side':  # in proportion to its square
            last = max(points)
            line = [points[last] / 1000 * (x / last) ** 2 for x in points]
            axis.plot(list(points), line, 'k:', label='as the pixels')
            axis.legend(frameon=False)
        axis.set(xlabel=label, ylim=(0, None))
    ms = read('mobilenet_v1')['milliseconds']
    for kind, label in (('mutual', 'mutual'), ('full', 'full network alone')):
        points = {
            int(name.rpartition(', ')[2]): value
            for name, value in ms.items()
            if name.startswith(f'step, {kind}, ')
        }
        axes[4].plot(
            list(points),
            [value / 1000 for value in points.values()],
            'o-',
            label=label,
        )
    axes[4].set(xlabel='processes on 2 cores (elapsed)', ylim=(0, None))
    axes[4].legend(frameon=False)
    axes[0].set(ylabel='seconds')
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(FIGURE, dpi=110)


if __name__ == '__main__':
    PAGE.write_text(write_page(), encoding='utf-8')
    draw()
