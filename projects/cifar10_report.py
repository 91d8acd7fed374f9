# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Tables and the figure of a study, from the runs that are finished."""

import csv
import statistics
from pathlib import Path
from typing import Dict, List, Mapping, Sequence

from cifar10_study import Study
from matplotlib.figure import Figure
from mmengine.registry import MODELS, init_default_scope
from report_tables import markdown_table, mean_std, spread

from mutualnet_mm import Subnet
from mutualnet_mm.apis import count_macs

Scores = Dict[Subnet, List[float]]  # one for each seed


class Report:
    """What a study has found so far.

    Args:
        study (Study): Its finished runs are read.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        recipe = study.recipe
        self.full = Subnet(1.0, recipe.sizes[0])
        self.macs = self._count_macs()
        main = {m: self.scores(m, recipe.epochs) for m in study.methods}
        # US-Net as published, and at resolutions that it never saw.
        plus = main.get('usnet', {})
        main['usnet'] = {
            s: v for s, v in plus.items() if s.resolution == recipe.sizes[0]
        }
        self.main = dict(main, **{'usnet-plus': plus})

    def scores(self, method: str, epochs: int) -> Scores:
        """Accuracies in percent by subnet, of the seeds that are finished."""
        found: Scores = {}
        for run in self.study.final_runs():
            if run and (run.method, run.epochs) == (method, epochs):
                for subnet, value in (self.study.result(run) or {}).items():
                    found.setdefault(subnet, []).append(value)
        return found

    def _count_macs(self) -> Mapping[Subnet, int]:
        run = self.study.search_runs()[0]
        init_default_scope('mmpretrain')
        model = MODELS.build(self.study.config(run, self.study.out).model)
        return {
            s: count_macs(model, s) for s in self.study.subnets(run.method)
        }

    def write(self, out: Path) -> None:
        """Write ``report.md``, ``accuracy.csv`` and ``curves.png``."""
        out.mkdir(parents=True, exist_ok=True)
        (out / 'report.md').write_text(self.markdown())
        with open(out / 'accuracy.csv', 'w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(
                ['method', 'epochs', 'lr', 'seed', 'subnet', 'macs', 'top1']
            )
            for run in self.study.final_runs():
                result = run and self.study.result(run)
                for subnet, top1 in sorted((result or {}).items(), key=str):
                    writer.writerow(
                        [run.method, run.epochs, run.lr, run.seed]
                        + [subnet, self.macs[subnet], f'{top1:.2f}']
                    )
        self.draw(out / 'curves.png')

    def markdown(self) -> str:
        """All tables."""
        alone = self._alone()
        parts = [
            '### The same subnet, trained together or alone',
            self._table(
                [str(s) for s in alone],
                {m: self._same(m, list(alone)) for m in self._together()},
                alone=[mean_std(v) for v in alone.values()],
            ),
            '### The best evaluated subnet within the same cost',
            self._table(
                [f'{self.macs[s] / 1e6:.2f} M' for s in alone],
                {m: self._within(m, list(alone)) for m in self._together()},
                alone=[mean_std(v) for v in alone.values()],
            ),
            '### The full network',
            self._full_network(),
        ]
        return '\n\n'.join(parts) + '\n'

    def _together(self) -> List[str]:
        return [m for m in self.main if not m.startswith('inet')]

    def _alone(self) -> Scores:
        found: Scores = {}
        for method, scores in self.main.items():
            if method.startswith('inet'):
                found.update(scores)
        return found

    def _same(self, method: str, subnets: Sequence[Subnet]) -> List[str]:
        return [mean_std(self.main[method].get(s)) for s in subnets]

    def _within(self, method: str, subnets: Sequence[Subnet]) -> List[str]:
        cells = []
        for limit in subnets:
            scores = {
                s: v
                for s, v in self.main[method].items()
                if self.macs[s] <= self.macs[limit]
            }
            best = max(
                scores, key=lambda s: statistics.mean(scores[s]), default=None
            )
            cells.append(f'{mean_std(scores[best])} ({best})' if best else '-')
        return cells

    def _table(
        self, head: List[str], rows: Dict[str, List[str]], alone: List[str]
    ) -> str:
        lines = [['method', 'lr', *head]]
        for method, cells in rows.items():
            lr = self.study.best_lr(method.replace('usnet-plus', 'usnet'))
            lines.append([method, str(lr), *cells])
        lines.append(['each alone', 'its own', *alone])
        return markdown_table(lines)

    def _full_network(self) -> str:
        study = self.study
        alone = f'inet-{self.full}'
        schedules = sorted({study.recipe.epochs, *study.recipe.trend_epochs})
        lines = [
            ['epochs', 'alone', 'mutualnet', 'gap', 'mutualnet-0.9', 'gap']
        ]
        for epochs in schedules:
            base = self.scores(alone, epochs).get(self.full)
            line = [str(epochs), mean_std(base)]
            for method in ('mutualnet', 'mutualnet-0.9'):
                values = self.scores(method, epochs).get(self.full)
                line.append(mean_std(values))
                gap = '-'
                if base and values:
                    gain = statistics.mean(values) - statistics.mean(base)
                    gap = f'{gain:+.1f}'
                line.append(gap)
            lines.append(line)
        return markdown_table(lines)

    def draw(self, path: Path) -> None:
        """Draw accuracy against MACs, of subnets that no cheaper one beats."""
        figure = Figure(figsize=(7, 5), layout='constrained')
        axes = figure.add_subplot()
        # Alike but for the lowest: the one shows through the other.
        styles = {'alone': 'k*', 'usnet-plus': 'o:'}
        curves = {m: self.main[m] for m in self._together() if '0.9' not in m}
        for method, scores in dict(curves, alone=self._alone()).items():
            front, best = [], -1.0
            for subnet in sorted(scores, key=lambda s: self.macs[s]):
                mean = statistics.mean(scores[subnet])
                if mean > best or method == 'alone':
                    best = mean
                    front.append(subnet)
            axes.errorbar(
                [self.macs[s] / 1e6 for s in front],
                [statistics.mean(scores[s]) for s in front],
                [spread(scores[s]) for s in front],
                fmt=styles.get(method, 'o-'),
                markersize=9 if method == 'alone' else 4,
                capsize=2,
                label='each alone' if method == 'alone' else method,
            )
        axes.set(
            xlabel='multiply-accumulates [M]',
            ylabel='top-1 accuracy [%], mean and standard deviation',
            xscale='log',
        )
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=120)
