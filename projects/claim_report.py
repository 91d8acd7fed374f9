# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Tables and figures of the claim, from the runs that are finished."""

import statistics
from pathlib import Path
from typing import Dict, List, Mapping

from claim_methods import (
    COMBINED,
    EPOCHS,
    EQUAL_EPOCHS,
    GRID,
    OPTIONS,
    PAPER,
    TAUGHT,
    TREND,
    Run,
    alone,
    distilled,
)
from claim_records import write_records
from claim_study import KINDS, ClaimStudy
from matplotlib.figure import Figure
from mmengine.registry import MODELS, init_default_scope
from report_tables import (
    fill_page,
    interval,
    markdown_table,
    mean_std,
    spread,
)

from mutualnet_mm import Subnet
from mutualnet_mm.apis import count_macs

Scores = Dict[int, float]
"""Accuracy in percent by seed."""


class ClaimReport:
    """What the study has found so far.

    Args:
        study (ClaimStudy): Its finished runs are read.
    """

    def __init__(self, study: ClaimStudy) -> None:
        self.study = study
        self.runs: Dict[str, Run] = {
            str(run): run for run in study.planned() if run is not None
        }
        self.macs = {data: self._count_macs(data) for data in study.images}

    def _count_macs(self, data: str) -> Mapping[Subnet, int]:
        init_default_scope('mmpretrain')
        run = Run(data, 'mutualnet', 0.1, EPOCHS, 0)
        model = MODELS.build(self.study.config(run, self.study.out).model)
        subnets = {s for m in self.study.methods.values() for s in m.subnets}
        return {s: count_macs(model, s) for s in subnets}

    def scores(
        self, data: str, method: str, epochs: int, subnet: Subnet, kind: str
    ) -> Scores:
        """Accuracies of the seeds that are finished."""
        found = {}
        for run in self.runs.values():
            if (run.data, run.method, run.epochs, run.use) == (
                *(data, method, epochs),
                '',
            ):
                result = self.study.result(run)
                if result and subnet in result[kind]:
                    found[run.seed] = result[kind][subnet]
        return found

    def write(self, folder: Path) -> None:
        """Write ``records.csv`` and a figure for each data set, and tables.

        These go into the page beside the folder, ``FOLDER.md``, between
        ``<!-- NAME -->`` and ``<!-- end -->``. Where there is no page it is
        made, with all tables.
        """
        finished = {
            name: self.study.result(r) for name, r in self.runs.items()
        }
        write_records(
            folder / 'records.csv',
            ((name, found) for name, found in finished.items() if found),
        )
        for data in self.study.images:
            reported = [r for r in self.runs.values() if not r.use]
            if any(finished[str(r)] for r in reported if r.data == data):
                self._draw(data, folder / f'{data}.png')
        fill_page(folder.with_suffix('.md'), self.tables())

    def tables(self) -> Dict[str, str]:
        """All tables by their names."""
        found = {'chosen': chosen(self.study)}
        for data in self.study.images:
            for kind in KINDS:
                found[f'{data}-{kind}'] = self._budgets(data, kind)
                found[f'{data}-{kind}-gains'] = self._gains(data, kind)
            found[f'{data}-rates'] = self._rates(data)
            if data in self.study.whole:
                found[f'{data}-lengths'] = self._trend(data)
                found[f'{data}-choice'] = self._choice(data)
        return found

    def _lines(self) -> List[tuple]:
        """Name, method of each subnet, and epochs, of the lines of a table."""
        together = [
            *('mutualnet', 'usnet', 'usnet-multiscale', 'mutualnet-0.9'),
            *(f'mutualnet-{name}' for name in (*OPTIONS, *PAPER)),
            *(TAUGHT, COMBINED),
        ]
        return [
            ('each alone', alone, EPOCHS),
            ('each alone, equal cost', alone, EQUAL_EPOCHS),
            ('each alone, equal cost, distilled', distilled, EQUAL_EPOCHS),
            *((name, lambda _, n=name: n, EPOCHS) for name in together),
        ]

    def _budgets(self, data: str, kind: str) -> str:
        rows = [
            ['method', *map(str, GRID)],
            ['MMACs', *(f'{self.macs[data][s] / 1e6:.2f}' for s in GRID)],
        ]
        for name, method, epochs in self._lines():
            cells = [
                mean_std(
                    [*self.scores(data, method(s), epochs, s, kind).values()]
                )
                for s in GRID
            ]
            if any(cell != '-' for cell in cells):
                rows.append([name, *cells])
        return markdown_table(rows)

    def _gains(self, data: str, kind: str) -> str:
        """Differences of the same seeds, with intervals of 95 percent."""
        rows = [['method', *map(str, GRID)]]
        for name, method, epochs in self._lines():
            if name == 'each alone, equal cost':
                continue
            cells = []
            for subnet in GRID:
                base = self.scores(
                    data, alone(subnet), EQUAL_EPOCHS, subnet, kind
                )
                own = self.scores(data, method(subnet), epochs, subnet, kind)
                gains = [
                    own[seed] - base[seed] for seed in own if seed in base
                ]
                cells.append(interval(gains))
            if any(cell != '-' for cell in cells):
                rows.append([name, *cells])
        return markdown_table(rows)

    def _trend(self, data: str) -> str:
        full = GRID[0]
        rows = [['epochs', 'statistics', 'alone', 'mutualnet', 'gap']]
        for epochs in sorted({EPOCHS, *TREND}):
            for kind in KINDS:
                base, own = (
                    self.scores(data, method, epochs, full, kind)
                    for method in (alone(full), 'mutualnet')
                )
                gaps = [own[seed] - base[seed] for seed in own if seed in base]
                cells = [mean_std([*base.values()]), mean_std([*own.values()])]
                if gaps:
                    rows.append([str(epochs), kind, *cells, interval(gaps)])
        return markdown_table(rows)

    def _rates(self, data: str) -> str:
        rows = [['method', 'rate', 'tried']]
        for method, settings in self.study.methods.items():
            rate = self.study.best_rate(data, method)
            if not settings.like and rate is not None:
                runs = self.study.search_runs(data, method)
                tried = ', '.join(
                    f'{run.rate}: {self.study.score(run):.1f}' for run in runs
                )
                rows.append([method, str(rate), tried])
        return markdown_table(rows)

    def _choice(self, data: str) -> str:
        ends = GRID[0], GRID[-1]
        rows = [
            [
                'method',
                *(f'mean, `{kind}`' for kind in KINDS),
                *(f'{subnet}, `paper`' for subnet in ends),
            ]
        ]
        for name, run in self.study.choice_runs(data).items():
            found = run and self.study.result(run)
            if found:
                cells = [
                    *(statistics.mean(found[kind].values()) for kind in KINDS),
                    *(found['paper'][subnet] for subnet in ends),
                ]
                rows.append([name, *(f'{cell:.1f}' for cell in cells)])
        return markdown_table(rows)

    def _draw(self, data: str, path: Path) -> None:
        figure = Figure(figsize=(12, 5), layout='constrained')
        panels = figure.subplots(1, len(KINDS), sharey=True)
        for kind, axes in zip(KINDS, panels):
            for name, method, epochs in self._lines():
                last = name.split('-')[-1]
                if name == TAUGHT or last in {**OPTIONS, **PAPER}:
                    continue
                scores = {
                    s: [
                        *self.scores(data, method(s), epochs, s, kind).values()
                    ]
                    for s in reversed(GRID)
                }
                shown = [s for s in scores if scores[s]]
                if len(shown) < 2:
                    continue
                axes.errorbar(
                    [self.macs[data][s] / 1e6 for s in shown],
                    [statistics.mean(scores[s]) for s in shown],
                    [spread(scores[s]) for s in shown],
                    fmt='k*--' if method is alone else 'o-',
                    alpha=0.5 if name == 'each alone' else 1,
                    capsize=2,
                    label=name,
                )
            axes.set(
                xlabel='multiply-accumulates [M]',
                xscale='log',
                title=f'{data}, statistics `{kind}`',
            )
            axes.grid(alpha=0.3)
        panels[0].set_ylabel('top-1 accuracy [%], mean and standard deviation')
        panels[0].legend()
        figure.savefig(path, dpi=120)


def chosen(study: ClaimStudy) -> str:
    """The options of the combination, in words."""
    options = study.combination()
    if options is None:
        return 'Chosen: not known yet.'
    settings = ', '.join(
        f'{name}={value!r}' for name, value in options.items()
    )
    return f'Chosen: `{settings}`.' if settings else 'Chosen: none.'
