# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The trainings of the claim: one network against networks trained alone."""

import copy
import json
import statistics
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import claim_images  # noqa: F401  (registers the data set)
import torch
from claim_methods import EPOCHS, RATES, SEEDS, Run, lengths, methods
from mmengine.config import Config
from mmengine.runner import Runner
from trainings import Trainings, accuracies, trained

from mutualnet_mm import Subnet

TRAIN, HELD_BACK = 10000, 2000
"""Training images, and how many of them choose the learning rates."""
BATCH = 64
# Mean and standard deviation of the training images, by channel.
_MOMENTS = {
    'cifar10': ([125.3, 123.0, 113.9], [60.0, 59.2, 62.0]),
    'fashion-mnist': ([72.9], [83.6]),
}
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
    """

    def __init__(self, images: Dict[str, Path], out: Path) -> None:
        super().__init__(out)
        self.images = images
        self.methods = methods()

    def planned(self) -> Sequence[Optional[Run]]:
        """What decides first: rates, then the main length seed by seed."""
        return [*self._searches(), *self._finals()]

    def _searches(self) -> Iterator[Run]:
        for data in self.images:
            for method, settings in self.methods.items():
                if not settings.like:
                    yield from self.search_runs(data, method)

    def search_runs(self, data: str, method: str) -> List[Run]:
        """A quarter of the length at each rate, tested on images held back."""
        return [
            Run(data, method, rate, EPOCHS // 4, 0, is_search=True)
            for rate in RATES
        ]

    def _finals(self) -> Iterator[Optional[Run]]:
        longest = max(len(lengths(method)) for method in self.methods)
        for i in range(longest):
            for seed in range(SEEDS):
                for data in self.images:
                    for method in self.methods:
                        for epochs in lengths(method)[i : i + 1]:
                            yield self.final_run(data, method, epochs, seed)

    def final_run(
        self, data: str, method: str, epochs: int, seed: int
    ) -> Optional[Run]:
        """A reported run; None while its rate is not known."""
        rate = self.best_rate(data, self.methods[method].like or method)
        return None if rate is None else Run(data, method, rate, epochs, seed)

    def best_rate(self, data: str, method: str) -> Optional[float]:
        """The rate of the highest mean accuracy on the images held back."""
        scores = {}
        for run in self.search_runs(data, method):
            found = self.result(run)
            if found is None:
                return None
            scores[run.rate] = statistics.mean(found['tested'].values())
        return max(scores, key=lambda rate: scores[rate])

    def result(self, run: Run) -> Optional[Accuracies]:
        """Accuracies of a run; None before it is finished."""
        file = self.out / 'runs' / str(run) / 'result.json'
        if not file.is_file():
            return None
        found = json.loads(file.read_text())['accuracy']
        return {
            kind: {Subnet.parse(s): value for s, value in values.items()}
            for kind, values in found.items()
        }

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
        method = self.methods[run.method]
        size = self.methods['mutualnet'].mutual['resolution'][0]
        own = method.mutual['resolution'][0]
        mean, std = _MOMENTS[run.data]
        crop = dict(type='CropAndFlip', padding=size // 8)
        resize = [] if own == size else [dict(type='ShrinkBatch', size=own)]
        pack = dict(type='PackBatch')
        end = TRAIN - HELD_BACK
        train, test = ('train', (0, TRAIN)), ('test', (0, 10000))
        if run.is_search:
            train, test = ('train', (0, end)), ('train', (end, TRAIN))

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
                model=_model(method.mutual, run.seed, mean, std),
                train_dataloader=loader(*train, BATCH, [crop]),
                test_dataloader=loader(*test, 250, []),
                test_evaluator=dict(type='Accuracy'),
                train_cfg=dict(by_epoch=True, max_epochs=run.epochs),
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
                    dict(type='LinearLR', start_factor=0.1, end=1, **by_iter),
                    dict(
                        type='CosineAnnealingLR',
                        begin=1,
                        end=run.epochs,
                        T_max=run.epochs - 1,
                        **by_iter,
                    ),
                ],
                default_hooks=dict(
                    logger=dict(type='LoggerHook', interval=50)
                ),
                randomness=dict(seed=run.seed),
            )
        )


def _model(mutual: dict, seed: int, mean: list, std: list) -> dict:
    channels = len(mean)
    return dict(
        type='mutualnet_mm.MutualLearning',
        wraps='ImageClassifier',
        mutual=dict(mutual, seed=seed),
        data_preprocessor=dict(
            type='ClsDataPreprocessor', num_classes=10, mean=mean, std=std
        ),
        backbone=dict(
            type='mutualnet_mm.Slimmable',
            wraps='ResNet_CIFAR',
            depth=18,
            in_channels=channels,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(2,),
            stem_channels=16,
            base_channels=16,
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=10,
            in_channels=64,
            loss=dict(type='CrossEntropyLoss'),
        ),
    )
