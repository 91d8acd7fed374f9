# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The trainings of the claim: one network against networks trained alone."""

import copy
import statistics
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import claim_images  # noqa: F401  (registers the data set)
import torch
from claim_methods import (
    COMBINED,
    DATA,
    EPOCHS,
    FIRST_RATES,
    GRID,
    OPTIONS,
    QUARTER,
    RATES,
    SEEDS,
    TREND,
    Method,
    Run,
    alone,
    lengths,
    methods,
    with_options,
)
from claim_records import read_records
from mmengine.config import Config
from mmengine.runner import Runner
from trainings import Trainings, accuracies, by_subnet, trained

from mutualnet_mm import Subnet

BATCH = 64
Accuracies = Dict[str, Dict[Subnet, float]]
"""By the kind of statistics, then by subnet."""

KINDS = dict(
    paper=dict(),
    tested=dict(pipeline='test', full='calibrated'),
)
"""Settings of ``BNCalibrationHook`` that every network is tested with:
``paper`` has running statistics of the full network, or of one trained alone,
and those of the training pipeline for all others."""


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
        # Their weights have to be here.
        for name in [n for n in self.records if n.endswith('_teacher')]:
            del self.records[name]

    @property
    def whole(self) -> List[str]:
        """Data sets that are not a part of another one."""
        return [name for name in self.images if not DATA[name].is_part]

    def planned(self) -> Sequence[Optional[Run]]:
        """Rates, one seed, the choice of options, then more seeds and lengths.

        Options and the paper's comparisons, each by itself, are of one seed,
        and not trained on parts of data sets; nor are distilled networks.
        """
        rated = [name for name, m in self.methods.items() if not m.like]
        others = [name for name, m in self.methods.items() if m.like]
        main = ['mutualnet', *map(alone, GRID)]
        rest = [name for name in rated if name not in main]
        learned = [name for name in others if self.methods[name].is_distilled]
        full = ['mutualnet', alone(GRID[0])]
        whole, first, next_seeds = self.whole, [0], range(1, SEEDS)
        parts = [name for name in self.images if DATA[name].is_part]
        plan = [
            self._searches(rated, whole),
            self._runs(rated, first, whole),
            (run for d in whole for run in self.choice_runs(d).values()),
            self._runs([COMBINED], first, whole),
            self._searches(main, parts),
            self._runs([*main, COMBINED], first, parts),
            self._runs(main, next_seeds, parts),
            self._searches(rest, parts),
            self._runs(rest, first, parts),
            self._runs([*rated, COMBINED], next_seeds[:1], whole),
            self._runs(full, first, whole, TREND),
            self._runs(others, first, whole),
            self._runs([*rated, COMBINED], next_seeds[1:], whole),
            self._runs([*rest, COMBINED], next_seeds, parts),
            self._runs(full, next_seeds, whole, TREND),
            self._runs(learned, next_seeds, whole),
        ]
        return [run for runs in plan for run in runs]

    def _searches(
        self, names: Sequence[str], images: Sequence[str]
    ) -> Iterator[Run]:
        for data in images:
            for name in names:
                yield from self.search_runs(data, name)

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
        """A quarter of the length, tested on images held back.

        At some rates; and at further ones until those beside the best one
        are known, as far as there are any.
        """
        rates = list(FIRST_RATES)
        while True:
            runs = [
                Run(data, method, rate, QUARTER, 0, use='search')
                for rate in rates
            ]
            scores = {r.rate: self.score(r) for r in runs}
            if None in scores.values():
                return runs
            place = RATES.index(max(scores, key=lambda rate: scores[rate]))
            beside = RATES[max(0, place - 1) : place + 2]
            further = [rate for rate in beside if rate not in rates]
            if not further:
                return runs
            rates = sorted(rates + further)

    def score(self, run: Run) -> Optional[float]:
        """Mean accuracy over the subnets; None before it is finished."""
        found = self.result(run)
        return found and statistics.mean(found['tested'].values())

    def final_run(
        self, data: str, method: str, epochs: int, seed: int
    ) -> Optional[Run]:
        """A reported run; None while it waits for others."""
        settings = self.method(method)
        rate = settings and self.best_rate(data, settings.like or method)
        if settings is None or rate is None:
            return None
        if settings.is_distilled or settings.is_taught:
            teacher = self.teacher_run(data, seed)
            if teacher is None or not self.weights(teacher).is_file():
                return teacher
        return Run(data, method, rate, epochs, seed)

    def method(self, name: str) -> Optional[Method]:
        """The settings of a method; None while it waits for others."""
        if name != COMBINED:
            return self.methods[name]
        options = self.combination()
        return None if options is None else with_options(options)

    def teacher_run(self, data: str, seed: int) -> Optional[Run]:
        """The full network alone, whose weights teach."""
        method = alone(GRID[0])
        rate = self.best_rate(data, method)
        if rate is None:
            return None
        return Run(data, method, rate, EPOCHS, seed, use='teacher')

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

    def best_rate(self, data: str, method: str) -> Optional[float]:
        """The rate of the highest mean accuracy on the images held back."""
        runs = self.search_runs(data, method)
        scores = {run.rate: self.score(run) for run in runs}
        if None in scores.values():
            return None
        return max(scores, key=lambda rate: scores[rate])

    def weights(self, run: Run) -> Path:
        """File of the trained weights of a run."""
        return self.out / 'runs' / str(run) / 'weights.pt'

    def result(self, run: Run) -> Optional[Accuracies]:
        """Accuracies of a run; None before it is finished."""
        name = str(run)
        if name in self.records:
            return self.records[name]
        found = self.found(run)
        if found is None:
            return None
        self.records[name] = {
            kind: by_subnet(values) for kind, values in found.items()
        }
        return self.records[name]

    def train(self, cfg: Config) -> Any:
        """Train, then test by each kind of statistics."""
        runner = trained(cfg)
        checkpoint = runner.model.state_dict()
        # Small, and what else is to be known is asked of it.
        torch.save(checkpoint, Path(cfg.work_dir) / 'weights.pt')
        found = {}
        for kind, settings in KINDS.items():
            tested = copy.deepcopy(cfg)
            tested.custom_hooks = [
                dict(type='mutualnet_mm.BNCalibrationHook', **settings)
            ]
            tested.resume, tested.load_from = False, None
            tested.experiment_name = f'{Path(cfg.work_dir).name}_{kind}'
            other = Runner.from_cfg(tested)
            other.model.load_state_dict(checkpoint)
            found[kind] = accuracies(other)
        return found

    def config(self, run: Run, folder: Path) -> Config:
        """The config of a run."""
        method = self.method(run.method)
        size = self.methods['mutualnet'].mutual['resolution'][0]
        own = method.mutual['resolution'][0]
        crop = dict(type='CropAndFlip', padding=size // 8)
        resize = [] if own == size else [dict(type='ShrinkBatch', size=own)]
        pack = dict(type='PackBatch')
        learn = []
        mutual = dict(method.mutual, seed=run.seed)
        if method.is_distilled or method.is_taught:
            teacher = self.teacher_run(run.data, run.seed)
            weights = str(self.weights(teacher))
            settings = dict(self.methods[teacher.method].mutual, seed=run.seed)
            alone_model = self._model(settings, run.data)
            if method.is_distilled:
                learn = [
                    dict(type='AddTeacher', model=alone_model, weights=weights)
                ]
            else:
                config = folder / 'teacher.py'
                content = dict(default_scope='mmpretrain', model=alone_model)
                Config(content).dump(config)
                mutual['teacher'] = dict(
                    config=str(config), checkpoint=weights
                )
        data = DATA[run.data]
        epochs = run.epochs * data.repeats
        number, end = data.train, data.train * 4 // 5
        train, test = ('train', (0, number)), ('test', (0, 10000))
        if run.use == 'search':  # the last fifth chooses
            train, test = ('train', (0, end)), ('train', (end, number))

        def loader(
            split: str, part: tuple, batch: int, steps: list
        ) -> Dict[str, Any]:
            return dict(
                batch_size=batch,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
                collate_fn=dict(type='one_batch'),
                dataset=dict(
                    type='ImageBatches',
                    file=str(self.images[run.data]),
                    split=split,
                    part=part,
                    pipeline=[*steps, *resize, pack],
                ),
            )

        by_iter = dict(by_epoch=True, convert_to_iter_based=True)
        return Config(
            dict(
                default_scope='mmpretrain',
                model=self._model(mutual, run.data, method.is_distilled),
                train_dataloader=loader(*train, BATCH, [crop, *learn]),
                test_dataloader=loader(*test, 250, []),
                test_evaluator=dict(type='Accuracy'),
                train_cfg=dict(by_epoch=True, max_epochs=epochs),
                test_cfg=dict(
                    type='mutualnet_mm.SubnetTestLoop',
                    subnets=list(map(str, method.subnets)),
                ),
                optim_wrapper=dict(
                    optimizer=dict(
                        type='SGD',
                        lr=run.rate,
                        momentum=0.9,
                        nesterov=True,
                        weight_decay=5e-4,
                    ),
                    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0),
                ),
                param_scheduler=[
                    dict(
                        type='LinearLR',
                        start_factor=0.1,
                        end=data.repeats,
                        **by_iter,
                    ),
                    dict(
                        type='CosineAnnealingLR',
                        begin=data.repeats,
                        end=epochs,
                        T_max=epochs - data.repeats,
                        **by_iter,
                    ),
                ],
                default_hooks=dict(
                    logger=dict(type='LoggerHook', interval=50)
                ),
                randomness=dict(seed=run.seed),
            )
        )

    def _model(self, mutual: dict, data: str, is_soft: bool = False) -> dict:
        own = DATA[data]
        return model(
            mutual, [*own.mean], [*own.std], is_soft, own.widen_factor
        )


def model(
    mutual: dict,
    mean: list,
    std: list,
    is_soft: bool = False,
    widen_factor: int = 1,
) -> dict:
    """WRN-10 for small images.

    Args:
        mutual (dict): As in a config.
        mean (list[float]): Of each channel.
        std (list[float]): Of each channel.
        is_soft (bool): Whether labels are probabilities. Defaults to False.
        widen_factor (int): Of its channels. Defaults to 1.
    """
    return dict(
        type='mutualnet_mm.MutualLearning',
        wraps='ImageClassifier',
        mutual=mutual,
        data_preprocessor=dict(
            type='ClsDataPreprocessor', num_classes=10, mean=mean, std=std
        ),
        backbone=dict(
            type='mutualnet_mm.SlimmableWideResNet',
            depth=10,
            widen_factor=widen_factor,
            in_channels=len(mean),
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=10,
            in_channels=64 * widen_factor,
            loss=dict(type='CrossEntropyLoss', use_soft=is_soft),
        ),
    )
