# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Short adaptive trainings, from a trained network and from scratch."""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from claim_methods import EPOCHS, GRID, SIZES, alone
from claim_methods import Run as ClaimRun
from claim_study import KINDS, ClaimStudy
from mmengine.config import Config
from mmengine.runner import Runner
from trainings import Trainings, accuracies, trained

from mutualnet_mm.apis import build_model, load_config
from mutualnet_mm.datasets.digits import make_digits
from mutualnet_mm.errors import UsageError
from mutualnet_mm.files import atomic_write
from mutualnet_mm.models.sorting import sort_checkpoint
from mutualnet_mm.slimmable.importance import MEASURES

CONFIG = (
    Path(__file__).resolve().parents[1]
    / 'configs/classification/mutual-resnet14_1xb64_digits.py'
)
SEEDS = 3
STARTS = ('unsorted', *MEASURES)
"""How the channels of the trained network lie."""


@dataclass(frozen=True)
class Run:
    """One training, or a test alone.

    Args:
        start (str): ``'stock'`` for the network trained alone; ``'scratch'``,
            or of which checkpoint an adaptive one starts.
        epochs (int): 0 for a test of what it starts from.
        rate (float): Learning rate.
        seed (int): Of weights and order.
    """

    start: str
    epochs: int
    rate: float
    seed: int

    def __str__(self) -> str:
        return f'{self.start}_{self.epochs}e_lr{self.rate}_seed{self.seed}'


class WarmStart(Trainings):
    """All runs on some data.

    Args:
        out (Path): Where checkpoints and results go.

    Attributes:
        name (str): Of the data.
        subnets (tuple[str]): What is tested, the full network first.
        lengths (tuple[int]): Epochs of the adaptive trainings.
        both_rates_at (tuple[int]): Lengths at which every start is tried with
            the rates of the others, too.
        rates (dict[str, float]): From scratch, and from a trained network.
    """

    name: str
    subnets: Tuple[str, ...]
    lengths: Tuple[int, ...]
    both_rates_at: Tuple[int, ...]
    rates: Dict[str, float]

    def stock_run(self, seed: int) -> Run:
        """The network trained alone, of which others start."""
        raise NotImplementedError(type(self).__name__)

    def adaptive_config(self, run: Run, folder: Path) -> Config:
        """The config of an adaptive run, without what it starts from."""
        raise NotImplementedError(type(self).__name__)

    def stock_config(self, run: Run, folder: Path) -> Config:
        """The config of the network trained alone."""
        raise NotImplementedError(type(self).__name__)

    def trained_alone(self, run: Run, cfg: Config) -> Runner:
        """The runner of the network trained alone, when it is trained."""
        return trained(cfg)

    def rate(self, start: str) -> float:
        """The learning rate that suits a start."""
        return self.rates['scratch' if start == 'scratch' else 'warm']

    def adaptive_runs(self, seed: int) -> List[Run]:
        """Tests of all starts, and their trainings, the short ones first."""
        starts = ('scratch', *STARTS)
        return [
            *(Run(start, 0, 0.0, seed) for start in STARTS),
            *(
                Run(start, epochs, rate, seed)
                for epochs in self.lengths
                for rate in self.rates.values()
                for start in starts
                if rate == self.rate(start) or epochs in self.both_rates_at
            ),
        ]

    def planned(self) -> Sequence[Optional[Run]]:
        """Seed by seed; what starts from a checkpoint waits for it."""
        return [
            run if self._can_start(run) else None
            for seed in range(SEEDS)
            for run in [self.stock_run(seed), *self.adaptive_runs(seed)]
        ]

    def _can_start(self, run: Run) -> bool:
        return run.start not in STARTS or self.checkpoint(run).is_file()

    def checkpoint(self, run: Run) -> Path:
        """What a run starts from."""
        return self.out / f'{run.start}_seed{run.seed}.pth'

    def config(self, run: Run, folder: Path) -> Config:
        """The config of a run."""
        if run.start == 'stock':
            cfg = self.stock_config(run, folder)
        else:
            cfg = self.adaptive_config(run, folder)
            cfg.test_cfg.subnets = list(self.subnets)
        if run.start in STARTS:
            cfg.load_from = str(self.checkpoint(run))
        cfg.run = dict(vars(run))
        return cfg

    def train(self, cfg: Config) -> Dict[str, float]:
        """Train, or test alone; a network trained alone is sorted, too."""
        run = Run(**cfg.pop('run'))
        if run.start == 'stock':
            runner = self.trained_alone(run, cfg)
            found = {self.subnets[0]: runner.test()['accuracy/top1']}
            self._sort(run.seed, runner.model)
            return found
        if run.epochs == 0:
            return accuracies(Runner.from_cfg(cfg))
        return accuracies(trained(cfg))

    def _sort(self, seed: int, model: Any) -> None:
        """Write what the adaptive runs of a seed start from."""
        unsorted = self.checkpoint(Run('unsorted', 0, 0.0, seed))
        # As of the stock class: without what it says of its training.
        weights = OrderedDict(model.state_dict().items())
        with atomic_write(unsorted) as file:
            torch.save(dict(state_dict=weights), file)
        run = Run('scratch', self.lengths[0], self.rate('scratch'), seed)
        adaptive = self.adaptive_config(run, self.out)
        for by in MEASURES:
            out = self.checkpoint(Run(by, 0, 0.0, seed))
            sort_checkpoint(build_model(adaptive), str(unsorted), out, by)


class Digits(WarmStart):
    """ResNet-14 on handwritten digits, which come with scikit-learn.

    Args:
        out (Path): Where data, checkpoints and results go.
    """

    name = 'digits'
    subnets = ('1.0x-16', '0.75x-16', '0.5x-12', '0.25x-8')
    lengths = (1, 2, 5, 10, 20)
    both_rates_at = (5,)
    rates = dict(scratch=0.1, warm=0.03)

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self.data = make_digits(out / 'digits')

    def stock_run(self, seed: int) -> Run:
        return Run('stock', max(self.lengths), self.rates['scratch'], seed)

    def adaptive_config(self, run: Run, folder: Path) -> Config:
        end = max(1, run.epochs)
        options: Dict[str, Any] = {
            f'{stage}_dataloader.dataset.data_root': str(self.data)
            for stage in ('train', 'val', 'test')
        }
        options.update(
            {
                'train_cfg.max_epochs': end,
                'param_scheduler.T_max': end,
                'param_scheduler.end': end,
                'optim_wrapper.optimizer.lr': run.rate,
                'randomness.seed': run.seed,
            }
        )
        return load_config(str(CONFIG), options, str(folder))

    def stock_config(self, run: Run, folder: Path) -> Config:
        cfg = self.adaptive_config(run, folder)
        cfg.model.type = cfg.model.pop('wraps')
        del cfg.model['mutual']
        cfg.model.backbone.type = 'ResNet_CIFAR'
        cfg.custom_hooks, cfg.test_cfg = [], dict()
        return cfg


class Cifar10(WarmStart):
    """The claim's network on CIFAR-10 at 16 pixels.

    Starts from the full network trained alone: from the weights that
    ``projects/claim.py`` has trained, or, where there are none yet, from its
    own run of the same config.

    Args:
        out (Path): Where checkpoints and results go.
        claim (Path): Where ``projects/claim.py`` works.
        records (Path, optional): Its ``--records``. Defaults to None.

    Raises:
        UsageError: If the claim has no images or no learning rates there.
    """

    name = 'cifar10'
    subnets = ('1.0x-16', '0.75x-14', '0.5x-12', '0.25x-10')
    lengths = (2, 5, 10)
    both_rates_at = ()

    def __init__(
        self, out: Path, claim: Path, records: Optional[Path] = None
    ) -> None:
        super().__init__(out)
        file = claim / f'{self.name}-{SIZES[0]}px.npz'
        self.claim = ClaimStudy({self.name: file}, claim, records)
        rates = {
            method: self.claim.best_rate(self.name, method)
            for method in ('mutualnet', alone(GRID[0]))
        }
        if not file.is_file() or None in rates.values():
            raise UsageError(
                f'{str(claim)!r} has no images or no learning rates of '
                f'{" and ".join(rates)}: run projects/claim.py there first'
            )
        scratch = rates['mutualnet']
        # A third, rounded to one digit.
        self.rates = dict(scratch=scratch, warm=float(f'{scratch / 3:.1g}'))

    def stock_run(self, seed: int) -> Run:
        rate = self.claim.best_rate(self.name, alone(GRID[0]))
        return Run('stock', EPOCHS, rate, seed)

    def adaptive_config(self, run: Run, folder: Path) -> Config:
        # The schedule warms up in its first epoch; a test needs none.
        epochs = max(2, run.epochs)
        return self._of_claim('mutualnet', run, epochs, folder)

    def stock_config(self, run: Run, folder: Path) -> Config:
        return self._of_claim(alone(GRID[0]), run, run.epochs, folder)

    def _of_claim(
        self, method: str, run: Run, epochs: int, folder: Path
    ) -> Config:
        own = ClaimRun(self.name, method, run.rate, epochs, run.seed)
        cfg = self.claim.config(own, folder)
        cfg.custom_hooks = [
            dict(type='mutualnet_mm.BNCalibrationHook', **KINDS['tested'])
        ]
        cfg.work_dir = str(folder)
        return cfg

    def trained_alone(self, run: Run, cfg: Config) -> Runner:
        method = alone(GRID[0])
        own = ClaimRun(self.name, method, run.rate, run.epochs, run.seed)
        weights = self.claim.weights(own)
        if not weights.is_file():
            return trained(cfg)
        cfg.resume = False
        runner = Runner.from_cfg(cfg)
        runner.model.load_state_dict(torch.load(weights))
        return runner
