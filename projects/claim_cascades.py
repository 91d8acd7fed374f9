#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Compare cascades of two subnets with single ones, on the claim's networks.

Takes the networks that projects/claim.py has trained by plain MutualNet so
far. Query tables on images that are neither trained nor tested on choose
subnets, pairs and thresholds; the test images judge. Writes a table and a
figure. What is measured is kept, and new runs are added when it runs again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from claim_images import READERS
from claim_methods import EPOCHS, GRID, SIZES, TRAIN, Run
from claim_study import KINDS, ClaimStudy
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from report_tables import interval, markdown_table

from mutualnet_mm.apis.measurement import Measurement
from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.errors import UsageError
from mutualnet_mm.files import make_folder
from mutualnet_mm.query_table import Cascade, QueryTable, best_cascade
from mutualnet_mm.query_table.answers import Answers
from mutualnet_mm.query_table.table import Choice
from mutualnet_mm.visualization.palette import COLOURS

PARTS = dict(
    # Of the training images, the first ones alone are trained on.
    chosen_on=('train', (TRAIN, 2 * TRAIN)),
    judged_on=('test', (0, 10000)),
)
DRAWS = 2000
"""Samples of the bootstrap."""
LINE = 60
"""Budgets of the lines of the figure, as many steps of equal ratio."""


class Judged(NamedTuple):
    """What a choice gives on the images that judge.

    Args:
        choice (TableEntry or Cascade): Which.
        right (ndarray): Whether each answer is right: bool, (N,).
        mean_macs (float): Of an image, on average.
    """

    choice: Choice
    right: np.ndarray
    mean_macs: float

    @property
    def top1(self) -> float:
        return 100 * float(self.right.mean())


@dataclass(frozen=True)
class Network:
    """A trained network: what chooses, and what judges.

    Args:
        run (Run): How it was trained.
        table (QueryTable): On the images that choose, with cascades.
        answers (dict[str, Answers]): To the images that judge, by subnet.
    """

    run: Run
    table: QueryTable
    answers: Dict[str, Answers]

    def judge(self, choice: Choice) -> Judged:
        """Run a choice on the images that judge."""
        if not isinstance(choice, Cascade):
            right = self.answers[str(choice.subnet)].right.numpy()
            return Judged(choice, right, float(choice.macs))
        first, second = (self.answers[str(s)] for s in choice.stages)
        goes_on = (first.confidence < choice.threshold).numpy()
        right = np.where(goes_on, second.right.numpy(), first.right.numpy())
        macs = {entry.subnet: entry.macs for entry in self.table.entries}
        small, large = (macs[s] for s in choice.stages)
        return Judged(choice, right, small + goes_on.mean() * large)

    def single(self, budget: float) -> Judged:
        """The best single subnet within a cost."""
        return self.judge(self.table.best(macs=budget))

    def cascade(self, budget: float, worst: Optional[float] = None) -> Judged:
        """The best choice within a mean cost, and one of the worst case."""
        return self.judge(best_cascade(self.table, budget, worst))


def measured(study: ClaimStudy, run: Run, folder: Path) -> Network:
    """Test a network on both parts, or take up what was measured.

    Raises:
        UsageError: If its subnets are not as good on the test images as the
            study has found.
    """
    tables, answers = {}, {}
    for name, (split, part) in PARTS.items():
        cfg = study.config(run, folder)
        cfg.test_dataloader.dataset.update(split=split, part=part)
        cfg.custom_hooks = [
            dict(type='mutualnet_mm.BNCalibrationHook', **KINDS['tested'])
        ]
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.log_level = 'WARNING'
        cfg.work_dir = str(make_folder(folder / name))
        cfg.experiment_name = f'{run}_{name}'
        measurement = Measurement(
            cfg, str(study.weights(run)), folder / name / 'progress', GRID
        )
        tables[name] = measurement.run()
        measurement.loop.progress.finish()
        answers[name] = measurement.loop.progress.answers
    table = tables['judged_on']
    expected = study.result(run)['tested']
    for entry in table.entries:
        found, told = table.score(entry), expected[entry.subnet]
        # Of another machine's rounding, a few images may be the victims.
        if found is None or abs(found - told) > 0.2:
            raise UsageError(
                f'{entry.subnet} of {run} has {found} on the test images, '
                f'and {told} in the study: its weights are other ones'
            )
    return Network(run, tables['chosen_on'], answers['judged_on'])


def finished_runs(study: ClaimStudy) -> List[Run]:
    """Reported runs of plain MutualNet whose weights are here."""
    return [
        run
        for run in study.planned()
        if run is not None
        and (run.method, run.use) == ('mutualnet', '')
        and study.result(run)
        and study.weights(run).is_file()
    ]


def bootstrap(
    gains: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> Tuple[float, float]:
    """95 % interval of a mean, of images drawn with replacement.

    Args:
        gains (ndarray): What an image adds, (N,); of pairs, the difference.
        draws (int): Samples. Defaults to :data:`DRAWS`.
        seed (int): Of the draws. Defaults to 0.
    """
    rng = np.random.default_rng(seed)
    number = len(gains)
    means = [
        gains[rng.integers(number, size=number)].mean() for _ in range(draws)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def budgets_table(networks: Sequence[Network], is_limited: bool) -> str:
    """Compare at the cost of each subnet, over the seeds that there are.

    Args:
        networks (Sequence[Network]): That differ in the seed alone.
        is_limited (bool): Whether no image may cost more than the full
            network.
    """
    rows = [
        [
            *('mean budget', 'single', 'top-1', 'cascade', 'top-1'),
            *('gain, 95 % over images', 'gain, 95 % over seeds'),
            *('mean cost', 'worst case'),
        ]
    ]
    for budget in sorted(e.macs for e in networks[0].table.entries)[1:]:
        worst = _full_macs(networks[0]) if is_limited else None
        pairs = [
            (network.single(budget), network.cascade(budget, worst))
            for network in networks
        ]
        singles, cascades = zip(*pairs)
        if not any(isinstance(c.choice, Cascade) for c in cascades):
            top1 = np.mean([s.top1 for s in singles])
            rows.append([_mega(budget), _names(singles), f'{top1:.1f}'])
            rows[-1] += ['none is better'] + ['-'] * 5
            continue
        gains = np.mean(
            [100.0 * c.right - 100.0 * s.right for s, c in pairs], axis=0
        )
        low, high = bootstrap(gains)
        rows.append(
            [
                _mega(budget),
                _names(singles),
                f'{np.mean([s.top1 for s in singles]):.1f}',
                _names(cascades),
                f'{np.mean([c.top1 for c in cascades]):.1f}',
                f'{gains.mean():+.1f} ({low:+.1f} to {high:+.1f})',
                interval([c.top1 - s.top1 for s, c in pairs]),
                _mega(float(np.mean([c.mean_macs for c in cascades]))),
                _mega(max(c.choice.macs for c in cascades)),
            ]
        )
    return markdown_table(rows)


def _full_macs(network: Network) -> int:
    return max(entry.macs for entry in network.table.entries)


def _mega(macs: float) -> str:
    return f'{macs / 1e6:.2f} M'


def _names(found: Sequence[Judged]) -> str:
    """The choices of all seeds, each once."""
    names = [
        ' → '.join(map(str, judged.choice.stages))
        if isinstance(judged.choice, Cascade)
        else str(judged.choice.subnet)
        for judged in found
    ]
    return ', '.join(dict.fromkeys(names))


def draw(networks: Sequence[Network], title: str, path: Path) -> None:
    """Draw accuracy against mean cost, and the worst cases below it.

    Args:
        networks (Sequence[Network]): That differ in the seed alone; means
            over them are drawn.
        title (str): Of the figure.
        path (Path): File to write.
    """
    full = _full_macs(networks[0])
    subnets = [*reversed(GRID)]
    entries = {e.subnet: e for e in networks[0].table.entries}
    macs = [entries[s].macs for s in subnets]
    figure = Figure(figsize=(7, 6), layout='constrained')
    axes, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    points = [
        [network.judge(entries[s]).top1 for network in networks]
        for s in subnets
    ]
    axes.plot(
        [m / 1e6 for m in macs],
        np.mean(points, axis=1),
        'ko--',
        label='single subnets',
    )
    lines: List[Tuple[str, str, str, Callable[[Network, float], Judged]]] = [
        (
            'cascades',
            COLOURS[0],
            '-',
            lambda network, budget: network.cascade(budget),
        ),
        (
            'cascades, no image above the full network',
            COLOURS[1],
            ':',
            lambda network, budget: network.cascade(budget, full),
        ),
    ]
    for label, colour, style, choose in lines:
        found = [
            [choose(network, budget) for network in networks]
            for budget in np.geomspace(min(macs), full, LINE)
        ]
        means = [np.mean([j.mean_macs for j in js]) / 1e6 for js in found]
        worst = [np.mean([j.choice.macs for j in js]) / 1e6 for js in found]
        settings = dict(color=colour, linestyle=style, lw=2)
        top1 = [np.mean([j.top1 for j in js]) for js in found]
        axes.plot(means, top1, label=label, **settings)
        below.plot(means, worst, **settings)
    below.axhline(full / 1e6, color='k', lw=0.8)
    axes.set(ylabel='top-1 accuracy [%]', xscale='log', title=title)
    below.set(
        xlabel='multiply-accumulates of an image, on average [M]',
        ylabel='worst case [M]',
    )
    axes.legend()
    for part in (axes, below):
        part.grid(alpha=0.3)
        part.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        part.xaxis.set_major_formatter('{x:g}')
        part.xaxis.set_minor_formatter(NullFormatter())
    figure.savefig(path, dpi=120)


def report(networks: Sequence[Network], folder: Path) -> str:
    """Tables of all data sets and lengths; a figure of the main length.

    Args:
        networks (Sequence[Network]): All that are measured.
        folder (Path): Where the figures go.
    """
    groups: Dict[Tuple[str, int], List[Network]] = {}
    for network in networks:
        key = network.run.data, network.run.epochs
        groups.setdefault(key, []).append(network)
    parts = []
    for (data, epochs), group in sorted(groups.items()):
        seeds = ', '.join(str(network.run.seed) for network in group)
        parts += [
            f'## {data}, {epochs} epochs, seeds: {seeds}',
            budgets_table(group, is_limited=False),
            'No image may cost more than the full network:',
            budgets_table(group, is_limited=True),
        ]
        if epochs == EPOCHS:
            title = f'{data}, {epochs} epochs, seeds: {seeds}'
            draw(group, title, folder / f'cascade_{data}.png')
    return '\n\n'.join(parts) + '\n'


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/claim'),
        help='the --out of projects/claim.py, default: %(default)s',
    )
    parser.add_argument(
        '--records',
        type=Path,
        help='the --records of projects/claim.py, if it was given any',
    )
    parser.add_argument(
        '--report',
        type=Path,
        default=Path('work_dirs/claim_cascades'),
        help='where tables, figures and answers go, default: %(default)s',
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    prepare_cpu()
    with one_line_errors():
        files = {n: args.out / f'{n}-{SIZES[0]}px.npz' for n in READERS}
        images = {name: file for name, file in files.items() if file.is_file()}
        study = ClaimStudy(images, args.out, args.records)
        runs = finished_runs(study)
        if not runs:
            raise UsageError(
                f'{str(args.out)!r} has no finished run of mutualnet: train '
                'them by projects/claim.py'
            )
        folder = make_folder(args.report)
        networks = []
        for i, run in enumerate(runs):
            print(f'[{i + 1}/{len(runs)}] {run}', flush=True)
            networks.append(measured(study, run, folder / 'runs' / str(run)))
        text = report(networks, folder)
        (folder / 'cascades.md').write_text(text)
        print(text)


if __name__ == '__main__':
    main()
