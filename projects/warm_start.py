# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Is it worth to start from a trained network, and to sort its channels?

    python projects/warm_start.py work_dirs/warm_start

Trains a stock ResNet-14 on handwritten digits, sorts its channels by each
measure, and tests its subnets before and after a short adaptive training,
beside one of the same length from scratch. Prints the tables of
docs/methods/warm_start.md. Interrupted, the same command goes on.
"""

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from trainings import Trainings, accuracies, trained

from mutualnet_mm import Subnet
from mutualnet_mm.apis import build_model, load_config
from mutualnet_mm.datasets.digits import make_digits
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.models.sorting import sort_checkpoint
from mutualnet_mm.slimmable.importance import MEASURES

CONFIG = 'configs/classification/mutual-resnet14_1xb64_digits.py'
EPOCHS, SHORT, SEEDS = 20, 5, 3
RATE, RATES = 0.1, (0.1, 0.03)
"""Learning rate of the stock training, and those of the short ones."""
SUBNETS = (
    *('1.0x-16', '0.75x-16', '0.5x-16', '0.35x-16', '0.25x-16'),
    *('0.75x-12', '0.5x-12', '0.25x-12', '0.25x-8'),
)
STARTS = ('unsorted', *MEASURES)


@dataclass(frozen=True)
class Run:
    """One training, or a test alone.

    Args:
        start (str): ``'stock'`` for the stock network; ``'scratch'``, or of
            which checkpoint an adaptive one starts.
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
    """All runs.

    Args:
        out (Path): Where data, checkpoints and results go.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self.data = make_digits(out / 'digits')

    def planned(self) -> Sequence[Optional[Run]]:
        """Seed by seed; what starts from a checkpoint waits for it."""
        return [
            run if self._can_start(run) else None
            for seed in range(SEEDS)
            for run in [
                Run('stock', EPOCHS, RATE, seed),
                Run('scratch', EPOCHS, RATE, seed),
                *(Run(start, 0, 0.0, seed) for start in STARTS),
                *(
                    Run(start, SHORT, rate, seed)
                    for rate in RATES
                    for start in ('scratch', *STARTS)
                ),
            ]
        ]

    def _can_start(self, run: Run) -> bool:
        return run.start not in STARTS or self.checkpoint(run).is_file()

    def checkpoint(self, run: Run) -> Path:
        """What a run starts from."""
        return self.out / f'{run.start}_seed{run.seed}.pth'

    def config(self, run: Run, folder: Path) -> Config:
        """The config of a run."""
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
                'test_cfg.subnets': [*SUBNETS],
            }
        )
        cfg = load_config(CONFIG, options, str(folder))
        cfg.run = dict(vars(run))
        if run.start == 'stock':
            cfg.model.type = cfg.model.pop('wraps')
            del cfg.model['mutual']
            cfg.model.backbone.type = 'ResNet_CIFAR'
            cfg.custom_hooks, cfg.test_cfg = [], dict()
        elif run.start in STARTS:
            cfg.load_from = str(self.checkpoint(run))
        return cfg

    def train(self, cfg: Config) -> Any:
        """Train, or test alone; a stock network is sorted, too."""
        run = Run(**cfg.pop('run'))
        if cfg.load_from:
            cfg.resume = False
        if run.epochs == 0:
            return accuracies(Runner.from_cfg(cfg))
        runner = trained(cfg)
        if run.start != 'stock':
            return accuracies(runner)
        found = {SUBNETS[0]: runner.test()['accuracy/top1']}
        weights = Path(cfg.work_dir) / f'epoch_{run.epochs}.pth'
        adaptive = self.config(Run('scratch', SHORT, RATE, run.seed), weights)
        for by in MEASURES:
            out = self.checkpoint(Run(by, 0, 0.0, run.seed))
            sort_checkpoint(build_model(adaptive), str(weights), out, by)
        weights.rename(self.checkpoint(Run('unsorted', 0, 0.0, run.seed)))
        return found

    def rows(self, epochs: int, rate: float) -> List[List[str]]:
        """A row for each start: mean and deviation over the seeds."""
        found = []
        starts = STARTS if epochs == 0 else ('scratch', *STARTS)
        for start in starts if epochs < EPOCHS else ('scratch',):
            results = [
                self.result(Run(start, epochs, rate, seed))
                for seed in range(SEEDS)
            ]
            cells = []
            for subnet in map(Subnet.parse, SUBNETS):
                values = [result[subnet] for result in results if result]
                mean, std = statistics.mean(values), statistics.stdev(values)
                cells.append(f'{mean:.1f} ± {std:.1f}')
            found.append([start, *cells])
        return found


def main() -> None:
    prepare_cpu()
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    study = WarmStart(out)
    study.work()
    for epochs, rate in [
        (0, 0.0),
        *((SHORT, r) for r in RATES),
        (EPOCHS, RATE),
    ]:
        print(f'\n{epochs} epochs, learning rate {rate}\n')
        print('| |', ' | '.join(SUBNETS), '|')
        print('|---' * (1 + len(SUBNETS)) + '|')
        for row in study.rows(epochs, rate):
            print('|', ' | '.join(row), '|')


if __name__ == '__main__':
    main()
