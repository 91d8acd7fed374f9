# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Accuracy against the length of the adaptive training."""

import statistics
from pathlib import Path
from typing import Dict, List

from matplotlib.figure import Figure
from report_tables import interval, markdown_table, mean_std, spread
from warm_start_study import SEEDS, STARTS, Run, WarmStart

from mutualnet_mm import Subnet
from mutualnet_mm.visualization.palette import line_style

NAMES = {
    'scratch': 'from scratch',
    'unsorted': 'trained, unsorted',
    'l1': "trained, sorted by 'l1'",
    'bn': "trained, sorted by 'bn'",
}
PAIRS = (('bn', 'unsorted'), ('l1', 'unsorted'), ('bn', 'scratch'))
"""Starts whose difference is told, with its interval."""


class WarmStartReport:
    """What a study has found so far.

    Args:
        study (WarmStart): Its finished runs are read.
    """

    def __init__(self, study: WarmStart) -> None:
        self.study = study
        self.subnets = list(map(Subnet.parse, study.subnets))

    def scores(
        self, start: str, epochs: int, rate: float, subnet: Subnet
    ) -> Dict[int, float]:
        """Accuracies in percent by seed, of the seeds that are finished."""
        found = {}
        for seed in range(SEEDS):
            result = self.study.result(Run(start, epochs, rate, seed))
            if result and subnet in result:
                found[seed] = result[subnet]
        return found

    def _at_best(
        self, start: str, epochs: int, subnet: Subnet
    ) -> Dict[int, float]:
        """The same at the rate that suits the start."""
        rate = self.study.rate(start) if epochs else 0.0
        return self.scores(start, epochs, rate, subnet)

    def tables(self) -> str:
        """All tables."""
        return '\n\n'.join(
            [
                f'## {self.study.name}',
                'The network trained alone: ' + mean_std(self._alone()),
                self._accuracies(),
                'Differences of the same seeds, with intervals of 95 %:',
                self._gains(),
            ]
        )

    def _alone(self) -> List[float]:
        stocks = map(self.study.stock_run, range(SEEDS))
        results = [self.study.result(run) for run in stocks]
        return [found[self.subnets[0]] for found in results if found]

    def _accuracies(self) -> str:
        rows = [['epochs', 'start', 'rate', *self.study.subnets]]
        starts = dict.fromkeys(
            (run.epochs, run.start, run.rate)
            for run in self.study.adaptive_runs(0)
        )
        for epochs, start, rate in starts:
            cells = [
                mean_std([*self.scores(start, epochs, rate, s).values()])
                for s in self.subnets
            ]
            shown = str(rate) if epochs else '-'
            rows.append([str(epochs), NAMES[start], shown, *cells])
        return markdown_table(rows)

    def _gains(self) -> str:
        rows = [['epochs', 'of', 'over', *self.study.subnets]]
        for own, base in PAIRS:
            for epochs in (0, *self.study.lengths):
                if not epochs and base not in STARTS:
                    continue
                cells = []
                for subnet in self.subnets:
                    ours = self._at_best(own, epochs, subnet)
                    theirs = self._at_best(base, epochs, subnet)
                    cells.append(
                        interval(
                            [ours[i] - theirs[i] for i in ours if i in theirs]
                        )
                    )
                rows.append([str(epochs), NAMES[own], NAMES[base], *cells])
        return markdown_table(rows)

    def draw(self, path: Path) -> None:
        """Draw accuracy against epochs, each subnet by itself."""
        figure = Figure(figsize=(8, 6), layout='constrained')
        panels = figure.subplots(2, 2, sharex=True).flat
        lengths = (0, *self.study.lengths)
        for axes, subnet in zip(panels, self.subnets):
            for number, (start, name) in enumerate(NAMES.items()):
                points = []
                for place, epochs in enumerate(lengths):
                    found = [*self._at_best(start, epochs, subnet).values()]
                    if found:
                        mean = statistics.mean(found)
                        points.append((place, mean, spread(found)))
                if points:
                    places, means, spreads = zip(*points)
                    axes.errorbar(
                        places,
                        means,
                        spreads,
                        capsize=2,
                        label=name,
                        **line_style(number),
                    )
            # Evenly spaced: most happens in the first epochs.
            axes.set_xticks(range(len(lengths)), map(str, lengths))
            axes.set(title=str(subnet))
            axes.grid(alpha=0.3)
        figure.supxlabel('epochs of adaptive training')
        figure.supylabel('top-1 accuracy [%], mean and standard deviation')
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside upper center', ncols=4)
        figure.savefig(path, dpi=120)
