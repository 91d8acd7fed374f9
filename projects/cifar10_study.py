# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What is trained to compare MutualNet with its baselines, and how."""

import statistics
from pathlib import Path
from typing import List, Optional

from cifar10_methods import LEARNING_RATES, TREND, Recipe, Run, methods
from mmengine.config import Config
from trainings import Trainings

from mutualnet_mm import Subnet

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/classification/mutual-wrn10-2_1xb64_cifar10-16px.py'


class Study(Trainings):
    """All runs of a recipe, their results in a folder.

    Args:
        recipe (Recipe): How much of everything.
        out (Path): Where images, runs and the report go.
    """

    def __init__(self, recipe: Recipe, out: Path) -> None:
        super().__init__(out)
        self.recipe = recipe
        self.methods = methods(recipe.sizes)

    def planned(self) -> List[Optional[Run]]:
        """The search of learning rates, then what is reported."""
        return [*self.search_runs(), *self.final_runs()]

    def search_runs(self) -> List[Run]:
        """Every method at every learning rate, tested on what is held back."""
        return [
            Run(method, lr, self.recipe.search_epochs, 0, is_search=True)
            for method in self.methods
            for lr in LEARNING_RATES
        ]

    def final_runs(self) -> List[Optional[Run]]:
        """None where the learning rate is not known yet."""
        best = {method: self.best_lr(method) for method in self.methods}
        trend = [name.format(full=self.recipe.sizes[0]) for name in TREND]
        plan = [
            (method, self.recipe.epochs, seed)
            for seed in range(self.recipe.seeds)
            for method in self.methods
        ] + [
            (method, epochs, seed)
            for epochs in self.recipe.trend_epochs
            for seed in range(self.recipe.seeds)
            for method in trend
        ]
        return [
            None if best[m] is None else Run(m, best[m], epochs, seed)
            for m, epochs, seed in plan
        ]

    def best_lr(self, method: str) -> Optional[float]:
        """The rate of the highest accuracy on the images held back.

        The mean over the subnets that are evaluated at a trained resolution.
        """
        trained = self.methods[method]['resolution']
        scores = {}
        for run in self.search_runs():
            if run.method == method:
                result = self.result(run)
                if result is None:
                    return None
                scores[run.lr] = statistics.mean(
                    v for s, v in result.items() if s.resolution in trained
                )
        return max(scores, key=lambda lr: scores[lr])

    def config(self, run: Run, folder: Path) -> Config:
        """The small CIFAR-10 config, made that of a run."""
        recipe, size = self.recipe, self.recipe.sizes[0]
        mutual = dict(self.methods[run.method], seed=run.seed)
        own_size = mutual['resolution'][0]
        cfg = Config.fromfile(CONFIG)
        cfg.model.mutual = mutual
        cfg.model.backbone.depth = recipe.depth
        cfg.model.backbone.widen_factor = recipe.widen_factor
        cfg.model.head.in_channels = 64 * recipe.widen_factor
        for loader, lists in (
            (cfg.train_dataloader, ('train', 'search')),
            (cfg.test_dataloader, ('test', 'holdout')),
        ):
            loader.num_workers = recipe.workers
            loader.dataset.data_root = str(self.out / 'images')
            loader.dataset.ann_file = f'{lists[run.is_search]}.txt'
            for step in loader.dataset.pipeline:
                if step.type == 'Resize':
                    step.scale = own_size
                elif step.type == 'RandomCrop':
                    step.crop_size, step.padding = size, size // 8
        cfg.train_dataloader.batch_size = recipe.batch_size
        cfg.optim_wrapper.optimizer.lr = run.lr
        cfg.param_scheduler.T_max = cfg.param_scheduler.end = run.epochs
        cfg.train_cfg.max_epochs = run.epochs
        cfg.test_cfg.subnets = list(map(str, self.subnets(run.method)))
        cfg.randomness = dict(seed=run.seed)
        return cfg

    def subnets(self, method: str) -> List[Subnet]:
        """Where a method is evaluated: on the grid, or at its one subnet."""
        mutual = self.methods[method]
        if mutual.get('widths'):
            return [Subnet(mutual['widths'][0], mutual['resolution'][0])]
        if mutual['width_range'] == (
            0.9,
            1.0,
        ):  # it is to boost the full network
            return [Subnet(1.0, self.recipe.sizes[0])]
        return [
            Subnet(width, size)
            for width in (1.0, 0.75, 0.5, 0.25)
            for size in self.recipe.sizes
        ]
