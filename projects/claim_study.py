# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The trainings of the claim: one network against networks trained alone."""

import copy
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import torch
from claim_config import Teacher, model, run_config
from claim_methods import (
    COMBINED,
    DATA,
    EPOCHS,
    FIRST_RATES,
    GRID,
    OPTIONS,
    PAPER,
    RATES,
    SEEDS,
    TAUGHT,
    TREND,
    Method,
    Run,
    alone,
    lengths,
    methods,
    search_epochs,
    with_options,
)
from claim_records import Accuracies, read_records
from mmengine.config import Config
from mmengine.runner import Runner
from trainings import Trainings, accuracies, by_subnet, trained

from mutualnet_mm.files import atomic_write

KINDS = dict(
    paper=dict(),
    tested=dict(pipeline='test', full='calibrated'),
)
"""Settings of ``BNCalibrationHook`` that every network is tested with:
``paper`` has running statistics of the full network, or of one trained alone,
and those of the training pipeline for all others."""
FITTED = 'fitted'
"""Accuracy on the images of the training, as they are without augmentation,
with statistics ``paper``: how far a network over-fits."""
HELD_BACK = 'held back'
"""Accuracy on :attr:`~claim_methods.Data.others`, with statistics ``paper``:
it chooses between finalists, and on parts of data sets the length for networks
alone."""
FINALISTS = 2
"""Rates of the best searches on whole data sets, which are tried at length.
And lower ones, as long as they are better there."""


class ClaimStudy(Trainings):
    """All runs on some data sets.

    Args:
        images (dict[str, Path]): File of each data set, as
            :func:`~claim_images.prepare_images` returns it.
        out (Path): Where the runs go.
        records (Path, optional): Runs that were finished elsewhere, as
            :mod:`.claim_records` writes them. Defaults to None.
    """

    def __init__(
        self,
        images: Dict[str, Path],
        out: Path,
        records: Optional[Path] = None,
    ) -> None:
        super().__init__(out)
        self.images = images
        self.methods = methods()
        self.records = read_records(records) if records else {}
        self.own: Dict[str, Accuracies] = {}

    @property
    def whole(self) -> List[str]:
        """Data sets that are not a part of another one."""
        return [name for name in self.images if not DATA[name].is_part]

    def planned(self) -> Sequence[Optional[Run]]:
        """All runs, in the order in which they are of use.

        Options and the paper's comparisons, each by itself, are of one seed.
        Parts of data sets have MutualNet, the combination, and networks
        trained alone.
        """
        rated = [name for name, m in self.methods.items() if not m.like]
        others = [name for name, m in self.methods.items() if m.like]
        main = ['mutualnet', *map(alone, GRID)]
        learned = [name for name in others if self.methods[name].is_distilled]
        paper = [f'mutualnet-{name}' for name in PAPER]
        full = ['mutualnet', alone(GRID[0])]
        # Which options it has is chosen on all of them together.
        every = {name for name, data in DATA.items() if not data.is_part}
        combined = [COMBINED] if every == set(self.whole) else []
        whole, first, next_seeds = self.whole, [0], range(1, SEEDS)
        parts = [name for name in self.images if DATA[name].is_part]
        plan = [
            # The claim itself: rates, and one seed of whole data sets.
            self._searches(main, whole),
            self._runs(main, first, whole),
            # The others; what is chosen there.
            self._searches(rated, whole),
            self._runs(rated, first, whole),
            (run for d in whole for run in self.choice_runs(d).values()),
            self._runs([*combined, TAUGHT], first, whole),
            # More seeds of the claim; what one seed is enough for.
            self._runs([*main, *combined], next_seeds, whole),
            self._runs(full, first, whole, TREND),
            self._runs(rated, next_seeds[:1], whole),
            self._runs([*learned, *paper], first, whole),
            self._runs(rated, next_seeds[1:], whole),
            self._runs(others, first, whole),
            # Parts of data sets.
            self._searches(main, parts),
            self._runs([*main, *combined], [*first, *next_seeds], parts),
            # More seeds of the rest.
            self._runs(full, next_seeds, whole, TREND),
            self._runs(learned, next_seeds, whole),
        ]
        # Several wait for the same teacher.
        return [*dict.fromkeys(run for runs in plan for run in runs)]

    def _searches(
        self, names: Sequence[str], images: Sequence[str]
    ) -> Iterator[Run]:
        for data in images:
            for name in names:
                yield from self.search_runs(data, name)
                yield from self.finalists(data, name) or ()

    def _runs(
        self,
        names: Sequence[str],
        seeds: Sequence[int],
        images: Sequence[str],
        epochs: Sequence[int] = (),
    ) -> Iterator[Optional[Run]]:
        for seed in seeds:
            for data in images:
                for name in names:
                    for number in epochs or lengths(name, data):
                        yield self.final_run(data, name, number, seed)

    def search_runs(self, data: str, method: str) -> List[Run]:
        """Short runs, or full ones of a part, tested on images held back.

        At some rates; and at further ones until those beside the best one
        are known, as far as there are any.
        """
        rates, length = list(FIRST_RATES), search_epochs(method, data)
        while True:
            runs = [
                Run(data, method, rate, length, 0, use='search')
                for rate in rates
            ]
            scores = [self.score(run) for run in runs]
            if None in scores:
                return runs
            further = set()
            for rate, score in zip(rates, scores):
                if score == max(scores):
                    place = RATES.index(rate)
                    further.update(RATES[max(0, place - 1) : place + 2])
            if further <= set(rates):
                return runs
            rates = sorted(further.union(rates))

    def finalists(self, data: str, method: str) -> Optional[List[Run]]:
        """Reported runs at the best rates of the searches: one of them is it.

        Rates that are the best after a short training need not be that of a
        long one, which wants lower ones: these are tried until they are worse.
        On parts of data sets searches are long: there are no finalists. None
        while the searches are under way.
        """
        runs = self.search_runs(data, method)
        scores = {run.rate: self.score(run) for run in runs}
        if None in scores.values():
            return None
        if DATA[data].is_part:
            return []
        rates = sorted(scores, key=lambda rate: -scores[rate])[:FINALISTS]
        while True:
            runs = [Run(data, method, rate, EPOCHS, 0) for rate in rates]
            finals = {run.rate: self.final_score(run) for run in runs}
            if None in finals.values():
                return runs
            best = max(finals, key=lambda rate: finals[rate])
            place = RATES.index(best)
            if best > min(rates) or place == 0:
                return runs
            rates.append(RATES[place - 1])

    def final_score(self, run: Run) -> Optional[float]:
        """Mean accuracy of a finalist on images held back; None before."""
        found = (self.result(run) or {}).get(HELD_BACK)
        subnets = self.methods[run.method].subnets
        return found and statistics.mean(found[s] for s in subnets)

    def score(self, run: Run) -> Optional[float]:
        """Mean accuracy over subnets and both kinds of statistics.

        None before it is finished.
        """
        found = self.result(run)
        return found and statistics.mean(
            value for kind in KINDS for value in found[kind].values()
        )

    def final_run(
        self, data: str, method: str, epochs: int, seed: int
    ) -> Optional[Run]:
        """A reported run, or first its teacher's; None while it waits."""
        settings = self.method(method)
        rate = settings and self.rate(data, method)
        if settings is None or rate is None:
            return None
        run = Run(data, method, rate, epochs, seed)
        if settings.has_teacher and not self.result(run):
            teacher = self.teacher_run(data, seed)
            if teacher is None or not self.result(teacher):
                return teacher
        return run

    def method(self, name: str) -> Optional[Method]:
        """The settings of a method; None while it waits for others."""
        if name != COMBINED:
            return self.methods[name]
        options = self.combination()
        return None if options is None else with_options(options)

    def teacher_run(self, data: str, seed: int) -> Optional[Run]:
        """The full network alone, whose weights teach.

        The reported run, or one more where its weights are not here.
        """
        method = alone(GRID[0])
        rate = self.best_rate(data, method)
        if rate is None:
            return None
        run = Run(data, method, rate, EPOCHS, seed)
        is_here = self.weights(run).is_file()
        return run if is_here else replace(run, use='teacher')

    def choice_runs(self, data: str) -> Dict[str, Optional[Run]]:
        """MutualNet and each option, tested on images held back."""
        rate = self.best_rate(data, 'mutualnet')
        names = ['mutualnet', *(f'mutualnet-{name}' for name in OPTIONS)]
        return {
            name: rate and Run(data, name, rate, EPOCHS // 2, 0, 'search')
            for name in names
        }

    def combination(self) -> Optional[dict]:
        """Settings of all options that helped, on images held back.

        An option helped where the mean accuracy over all data sets and
        subnets is above plain MutualNet's. None before that is known.
        """
        gains = dict.fromkeys(OPTIONS, 0.0)
        for data in self.whole:
            scores = {
                name: run and self.score(run)
                for name, run in self.choice_runs(data).items()
            }
            if None in scores.values():
                return None
            for name in OPTIONS:
                own, plain = scores[f'mutualnet-{name}'], scores['mutualnet']
                gains[name] += own - plain
        options: Dict[str, Any] = {}
        # The one that helped most decides where two set the same.
        for name in sorted(gains, key=lambda name: gains[name]):
            if gains[name] > 0:
                options.update(OPTIONS[name])
        return options

    def rate(self, data: str, method: str) -> Optional[float]:
        """Of a method: its own best one, or that of another; None before."""
        like = 'mutualnet' if method == COMBINED else self.methods[method].like
        return self.best_rate(data, like or method)

    def best_rate(self, data: str, method: str) -> Optional[float]:
        """The rate of the highest mean accuracy on the images held back.

        On whole data sets that of the finalists; on parts, of the searches.
        None before it is known.
        """
        runs, score = self.finalists(data, method), self.final_score
        if not runs:
            runs, score = self.search_runs(data, method), self.score
        scores = {run.rate: score(run) for run in runs}
        if None in scores.values():
            return None
        return max(scores, key=lambda rate: scores[rate])

    def weights(self, run: Run) -> Path:
        """File of the trained weights of a run."""
        return self.out / 'runs' / str(run) / 'weights.pt'

    def result(self, run: Run) -> Optional[Accuracies]:
        """Accuracies of a run; None before it is finished.

        What was trained here goes before the records.
        """
        name = str(run)
        if name not in self.own:
            found = self.found(run)
            if found is None:
                # A teacher's weights have to be here.
                is_teacher = run.use == 'teacher'
                return None if is_teacher else self.records.get(name)
            # As records have them, so that tables of either are the same.
            self.own[name] = {
                kind: {s: round(v, 2) for s, v in by_subnet(values).items()}
                for kind, values in found.items()
            }
        return self.own[name]

    def is_done(self, run: Run) -> bool:
        """Whether a run was tested at everything that is asked of it now."""
        found = self.result(run)
        if not found or run.use:
            return bool(found)
        method = self.method(run.method)
        wanted = {*method.subnets, *method.more}
        is_done = wanted <= found['paper'].keys() and (
            HELD_BACK in found or not self._is_compared(run)
        )
        if not is_done:  # it is read again, once it is tested again
            self.own.pop(str(run), None)
        return is_done

    def _is_compared(self, run: Run) -> bool:
        """Whether a reported run is one of those that images choose from."""
        if DATA[run.data].is_part:  # its length is chosen
            return run.method.startswith('alone-')
        return run in (self.finalists(run.data, run.method) or ())

    def train(self, cfg: Config) -> Any:
        """Train, then test by each kind of statistics, and other images."""
        weights = Path(cfg.work_dir) / 'weights.pt'
        if not weights.is_file():  # or it was stopped while it tested
            checkpoint = trained(cfg).model.state_dict()
            # Small, and what else is to be known is asked of it.
            with atomic_write(weights) as file:
                torch.save(checkpoint, file)
        checkpoint = torch.load(weights, weights_only=True)
        kinds = [*KINDS, FITTED, *([HELD_BACK] if 'held_back' in cfg else [])]
        return {kind: self.test(cfg, checkpoint, kind) for kind in kinds}

    def test(
        self, cfg: Config, checkpoint: Dict[str, Any], kind: str
    ) -> Dict[str, float]:
        """Accuracy of each subnet, of a kind of :data:`KINDS` or another."""
        cfg = copy.deepcopy(cfg)
        settings = KINDS.get(kind, KINDS['paper'])
        cfg.custom_hooks = [
            dict(type='mutualnet_mm.BNCalibrationHook', **settings)
        ]
        train, test = (
            loader.dataset
            for loader in (cfg.train_dataloader, cfg.test_dataloader)
        )
        if kind == FITTED:
            test.update(split=train.split, part=train.part)
        elif kind == HELD_BACK:
            test.update(split=train.split, part=cfg.held_back)
        cfg.resume, cfg.load_from = False, None
        cfg.experiment_name = f'{Path(cfg.work_dir).name}_{kind}'
        runner = Runner.from_cfg(cfg)
        runner.model.load_state_dict(checkpoint)
        return accuracies(runner)

    def config(self, run: Run, folder: Path) -> Config:
        """The config of a run."""
        method = self.method(run.method)
        teacher = None
        if method.has_teacher:
            other = self.teacher_run(run.data, run.seed)
            mutual = dict(self.methods[other.method].mutual, seed=run.seed)
            teacher = Teacher(
                model(mutual, DATA[run.data]), self.weights(other)
            )
        images = self.images[run.data]
        cfg = run_config(run, method, images, folder, teacher)
        if not run.use and self._is_compared(run):
            cfg.held_back = DATA[run.data].others
        return cfg
