# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Tables and figures of the claim, from the runs that are finished."""

import statistics
from pathlib import Path
from typing import (
    Callable,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from claim_config import model
from claim_figure import Curve, draw_curves
from claim_methods import (
    COMBINED,
    DATA,
    EPOCHS,
    EQUAL_EPOCHS,
    GRID,
    OPTIONS,
    PAPER,
    QUARTER,
    TAUGHT,
    TOGETHER_EPOCHS,
    TREND,
    Run,
    alone,
    distilled,
    lengths,
)
from claim_records import write_records
from claim_study import FITTED, HELD_BACK, KINDS, ClaimStudy
from mmengine.registry import MODELS, init_default_scope
from report_tables import (
    fill_page,
    interval,
    markdown_table,
    mean_std,
)

from mutualnet_mm import Subnet
from mutualnet_mm.apis import count_macs
from mutualnet_mm.cost import expected_macs

Scores = Dict[int, float]
"""Accuracy in percent by seed."""


class Line(NamedTuple):
    """A line of the tables.

    Args:
        name (str): Its head.
        method (callable): Gives the method of a subnet.
        epochs (int, optional): How long it was trained; None for the best
            length of each network on images held back.
        is_drawn (bool): Whether figures show it. Defaults to True.
        is_base (bool): Whether others are compared with it. Defaults to False.
    """

    name: str
    method: Callable[[Subnet], str]
    epochs: Optional[int]
    is_drawn: bool = True
    is_base: bool = False


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
        self._costs: Dict[Tuple[str, str], float] = {}

    def _count_macs(self, data: str) -> Mapping[Subnet, int]:
        init_default_scope('mmpretrain')
        run = Run(data, 'mutualnet', 0.1, EPOCHS, 0)
        built = MODELS.build(self.study.config(run, self.study.out).model)
        subnets = {s for m in self.study.methods.values() for s in m.subnets}
        return {s: count_macs(built, s) for s in subnets}

    def scores(
        self, data: str, method: str, epochs: int, subnet: Subnet, kind: str
    ) -> Scores:
        """Accuracies of the seeds that are finished."""
        found = {}
        if method not in (*self.study.methods, COMBINED):
            return found
        rate = self.study.rate(data, method)
        wanted = (data, method, rate, epochs, '')
        for run in self.runs.values():
            own = (run.data, run.method, run.rate, run.epochs, run.use)
            if own == wanted:
                result = (self.study.result(run) or {}).get(kind, {})
                if subnet in result:
                    found[run.seed] = result[subnet]
        return found

    def _of_line(
        self, data: str, line: Line, subnet: Subnet, kind: str
    ) -> Scores:
        epochs = line.epochs or self._best_length(data, line, subnet)
        return self.scores(data, line.method(subnet), epochs, subnet, kind)

    def _best_length(self, data: str, line: Line, subnet: Subnet) -> int:
        """Of all lengths, on images held back; 0 before all are known.

        By the seeds that all of them have.
        """
        method = line.method(subnet)
        found = {
            epochs: self.scores(data, method, epochs, subnet, HELD_BACK)
            for epochs in lengths(method, data)
        }
        seeds = set.intersection(*(set(scores) for scores in found.values()))
        if not seeds:
            return 0
        return max(found, key=lambda n: sum(found[n][s] for s in seeds))

    def _grid_scores(self, data: str, line: Line, kind: str) -> List[Scores]:
        """Of each subnet of the grid, and their means."""
        found = [self._of_line(data, line, s, kind) for s in GRID]
        seeds = set.intersection(*(set(scores) for scores in found))
        means = {
            seed: statistics.mean(scores[seed] for scores in found)
            for seed in seeds
        }
        return [*found, means]

    def write(self, folder: Path) -> None:
        """Write tables, ``records.csv`` and a figure for each data set.

        Tables go into the page beside the folder, ``FOLDER.md``, between
        ``<!-- NAME -->`` and ``<!-- end -->``. Where there is no page it is
        made, with all tables. Records that the study was given are kept, of
        runs that are not planned, too: of another learning rate, say.

        Raises:
            UsageError: If the page has a place for a table that there is not,
                as of a data set that was not given. Then nothing is written.
        """
        fill_page(folder.with_suffix('.md'), self.tables())
        records = dict(self.study.records)
        drawn = set()
        for name, run in self.runs.items():
            found = self.study.result(run)
            # A teacher repeats a reported run.
            if found and run.use != 'teacher':
                records[name] = found
                if not run.use:
                    drawn.add(run.data)
        write_records(folder / 'records.csv', records)
        for data in drawn:
            self._draw(data, folder / f'{data}.png')

    def tables(self) -> Dict[str, str]:
        """All tables by their names."""
        found = {'chosen': chosen(self.study)}
        for data in self.study.images:
            for kind in KINDS:
                found[f'{data}-{kind}'] = self._budgets(data, kind)
                found[f'{data}-{kind}-gains'] = self._gains(data, kind)
            found[f'{data}-fitted'] = self._fitted(data)
            found[f'{data}-rates'] = self._rates(data)
            if data in self.study.whole:
                found[f'{data}-usnet'] = self._usnet(data)
                found[f'{data}-lengths'] = self._trend(data)
                found[f'{data}-choice'] = self._choice(data)
        return found

    def _lines(self, data: str) -> List[Line]:
        def together(
            name: str, epochs: int = EPOCHS, is_drawn: bool = True
        ) -> Line:
            head = name if epochs == EPOCHS else f'{name}, {epochs} epochs'
            is_base = name == 'mutualnet' and epochs == EPOCHS
            return Line(head, lambda subnet: name, epochs, is_drawn, is_base)

        more = [*(f'mutualnet-{name}' for name in (*OPTIONS, *PAPER)), TAUGHT]
        is_part = DATA[data].is_part
        together_epochs = [] if is_part else [TOGETHER_EPOCHS]
        singles = [
            Line(f'each alone, {epochs} epochs', alone, epochs, True, True)
            for epochs in (*together_epochs, EPOCHS, EQUAL_EPOCHS)
        ]
        if is_part:
            early = f'each alone, {QUARTER} epochs'
            singles.append(Line(early, alone, QUARTER))
            best = Line('each alone, best length', alone, None, False, True)
            if all(self._best_length(data, best, s) for s in GRID):
                singles.append(best)
        return [
            *singles,
            Line(
                f'each alone, {EQUAL_EPOCHS} epochs, distilled',
                distilled,
                EQUAL_EPOCHS,
            ),
            together('mutualnet'),
            together('mutualnet', EQUAL_EPOCHS),
            *map(together, ('usnet', 'usnet-multiscale', 'mutualnet-0.9')),
            *(together(name, is_drawn=False) for name in more),
            together(COMBINED),
        ]

    def _budgets(self, data: str, kind: str) -> str:
        macs = self.macs[data]
        rows = [
            ['method', 'cost', *map(str, GRID), 'mean'],
            ['MMACs', '', *(f'{macs[s] / 1e6:.2f}' for s in GRID), ''],
        ]
        return markdown_table(rows + self._rows(data, kind))

    def _fitted(self, data: str) -> str:
        """Accuracy on the images that were trained on."""
        rows = self._rows(data, FITTED)
        head = [['method', 'cost', *map(str, GRID), 'mean']]
        return markdown_table(head + rows) if rows else 'None so far.'

    def _rows(self, data: str, kind: str) -> List[List[str]]:
        rows = []
        for line in self._lines(data):
            found = self._grid_scores(data, line, kind)
            if any(found):
                cells = [mean_std([*scores.values()]) for scores in found]
                cost = f'{self.cost(data, line):.2f}'
                rows.append([line.name, cost, *cells])
        return rows

    def cost(self, data: str, line: Line) -> float:
        """Training cost of a line, all its networks together.

        Relative to the full network alone, trained for :data:`EPOCHS`. With
        the training of a teacher.
        """
        key = data, line.name
        if key not in self._costs:
            known = (*self.study.methods, COMBINED)
            full = self.macs[data][GRID[0]]
            epochs = {
                line.method(s): line.epochs or self._best_length(data, line, s)
                for s in GRID
                if line.method(s) in known
            }
            steps = {name: self._step_macs(data, name) for name in epochs}
            cost = sum(steps[name] * epochs[name] for name in epochs)
            # A teacher is trained, too.
            is_taught = any(self.study.method(n).has_teacher for n in epochs)
            self._costs[key] = cost / full / EPOCHS + is_taught
        return self._costs[key]

    def _step_macs(self, data: str, name: str) -> float:
        method = self.study.method(name)
        built = MODELS.build(model(method.mutual, DATA[data]))
        macs = expected_macs(built, [built.sampler])[0]
        if method.has_teacher:  # whose weights may be elsewhere
            # Its forward pass; steps count forward and backward.
            macs += self.macs[data][GRID[0]] / 3
        return macs

    def _gains(self, data: str, kind: str) -> str:
        """Differences of the same seeds, with intervals of 95 percent."""
        rows = [['method', 'over', *map(str, GRID), 'mean']]
        lines = self._lines(data)
        for base in (line for line in lines if line.is_base):
            others = self._grid_scores(data, base, kind)
            for line in lines:
                if line is base or line.method is alone:
                    continue
                found = self._grid_scores(data, line, kind)
                cells = [compared(*pair)[-1] for pair in zip(others, found)]
                is_found = any(cell != '-' for cell in cells)
                if is_found and not self._is_more(data, line, base):
                    rows.append([line.name, base.name, *cells])
        return markdown_table(rows)

    def _is_more(self, data: str, line: Line, base: Line) -> bool:
        """Whether a line is trained longer than a base and costs more."""
        if base.epochs is None or line.epochs <= base.epochs:
            return False
        # Eight networks have no number of epochs at quite the same cost.
        return self.cost(data, line) > 1.02 * self.cost(data, base)

    def _usnet(self, data: str) -> str:
        """US-Net and MutualNet at each width, at the full resolution."""
        macs = self.macs[data]
        rows = [
            ['subnet', 'MMACs', 'statistics', 'usnet', 'mutualnet', 'gain']
        ]
        subnets = self.study.methods['usnet'].subnets
        for subnet in sorted(subnets, key=lambda s: -s.width):
            for kind in KINDS:
                base, own = (
                    self.scores(data, method, EPOCHS, subnet, kind)
                    for method in ('usnet', 'mutualnet')
                )
                cells = [str(subnet), f'{macs[subnet] / 1e6:.2f}', kind]
                if base and own:
                    rows.append([*cells, *compared(base, own)])
        return markdown_table(rows)

    def _trend(self, data: str) -> str:
        full = GRID[0]
        rows = [['epochs', 'statistics', 'alone', 'mutualnet', 'gap']]
        for epochs in (*TREND, EPOCHS, EQUAL_EPOCHS):
            for kind in KINDS:
                base, own = (
                    self.scores(data, method, epochs, full, kind)
                    for method in (alone(full), 'mutualnet')
                )
                if own.keys() & base.keys():
                    rows.append([str(epochs), kind, *compared(base, own)])
        return markdown_table(rows)

    def _rates(self, data: str) -> str:
        """All that were tried, and of whole data sets the best at length."""
        is_part = DATA[data].is_part
        columns = ['searches', *([] if is_part else [f'{EPOCHS} epochs'])]
        rows = [['method', 'rate', *columns]]
        study = self.study
        for method, settings in study.methods.items():
            rate = None if settings.like else study.best_rate(data, method)
            if rate is not None:
                searches = study.search_runs(data, method)
                cells = [tried(searches, study.score)]
                if not is_part:
                    finalists = study.finalists(data, method) or []
                    cells.append(tried(finalists, study.final_score))
                rows.append([method, str(rate), *cells])
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
        dashes = dict.fromkeys((QUARTER, TOGETHER_EPOCHS), ':')
        dashes.update({EPOCHS: '-.', EQUAL_EPOCHS: '--'})
        panels: Dict[str, List[Curve]] = {}
        for kind in KINDS:
            curves = panels.setdefault(f'{data}, statistics `{kind}`', [])
            for line in (one for one in self._lines(data) if one.is_drawn):
                points = {
                    macs / 1e6: [*found.values()]
                    for subnet, macs in self.macs[data].items()
                    if (found := self._of_line(data, line, subnet, kind))
                }
                if len(points) > 1:
                    style = dashes[line.epochs] if line.method is alone else ''
                    curves.append(Curve(line.name, points, style))
        draw_curves(panels, path)


def tried(runs: Sequence[Run], score: Callable[[Run], Optional[float]]) -> str:
    """Rates of runs, with what they found."""
    return ', '.join(f'{run.rate}: {score(run):.1f}' for run in runs)


def compared(base: Scores, own: Scores) -> List[str]:
    """Both as means, and by how much the second one is above, in words.

    Of the seeds that both have, with an interval of 95 percent.
    """
    seeds = sorted(own.keys() & base.keys())
    means = [mean_std([scores[s] for s in seeds]) for scores in (base, own)]
    return [*means, interval([own[s] - base[s] for s in seeds])]


def chosen(study: ClaimStudy) -> str:
    """The options of the combination, in words."""
    options = study.combination()
    if options is None:
        return 'Chosen: not known yet.'
    settings = ', '.join(
        f'{name}={value!r}' for name, value in options.items()
    )
    return f'Chosen: `{settings}`.' if settings else 'Chosen: none.'
