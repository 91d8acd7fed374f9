#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Do a detector's subnets gain by following the full network's maps?

Trains a small YOLOX on scenes of handwritten digits, with mutual.distill and
without, and prints the table of docs/methods/distill.md. Finished runs are
kept: stopped at any time, it goes on where it was. Each process uses one CPU
thread; start it once per core, with the same --out, and they share the runs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence

import torch
from mmengine.config import Config
from report_tables import interval, markdown_table, mean_std
from trainings import Trainings, accuracies, study_parser, trained, try_lock

from mutualnet_mm import Subnet
from mutualnet_mm.apis import build_model, count_macs, load_config
from mutualnet_mm.cli import one_line_errors
from mutualnet_mm.config import find_views
from mutualnet_mm.datasets.digit_scenes import make_digit_scenes
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.files import make_folder

CONFIG = (
    Path(__file__).resolve().parents[1]
    / 'configs/detection/mutual-yolox-thin_1xb8_digits.py'
)
WEIGHTS, SEEDS, EPOCHS = (0.0, 10.0), 3, 16
"""``mutual.distill``: off, and what PKD takes for one stage."""
NUM_TEST = 300
"""Images tested: five times the quick start's, whose first ones they are."""


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        distill (float): As in ``mutual``.
        epochs (int): Its length.
        seed (int): Of weights, order, augmentation and subnets.
    """

    distill: float
    epochs: int
    seed: int

    def __str__(self) -> str:
        return f'distill{self.distill:g}_{self.epochs}e_seed{self.seed}'


class Distillation(Trainings):
    """All runs.

    Args:
        out (Path): Where scenes, runs and weights go.
        epochs (int): Of every run. Defaults to :data:`EPOCHS`.
    """

    def __init__(self, out: Path, epochs: int = EPOCHS) -> None:
        super().__init__(out)
        self.epochs = epochs
        with try_lock(out / 'lock', wait=True):
            self.data = make_digit_scenes(
                out / 'digit_scenes', num_val=NUM_TEST
            )

    def planned(self) -> Sequence[Run]:
        """Pairs that differ in ``distill`` alone, seed by seed."""
        return [
            Run(distill, self.epochs, seed)
            for seed in range(SEEDS)
            for distill in WEIGHTS
        ]

    def config(self, run: Run, folder: Path) -> Config:
        """The config of a run."""
        annotations = str(self.data / 'annotations/instances_val.json')
        options: Dict[str, Any] = {
            'model.mutual.distill': run.distill,
            'model.mutual.seed': run.seed,
            'randomness.seed': run.seed,
            'train_cfg.max_epochs': run.epochs,
            'param_scheduler.1.begin': run.epochs // 2,
            'param_scheduler.1.end': run.epochs,
            'param_scheduler.1.T_max': run.epochs // 2,
            # What served the subnets of such detectors best.
            'custom_hooks.1.pipeline': 'test',
            'train_dataloader.dataset.dataset.data_root': str(self.data),
        }
        for stage in ('val', 'test'):
            options[f'{stage}_dataloader.dataset.data_root'] = str(self.data)
            options[f'{stage}_evaluator.ann_file'] = annotations
        return load_config(str(CONFIG), options, str(folder))

    def train(self, cfg: Config) -> Dict[str, float]:
        """Train, keep the weights, and test: box AP in percent."""
        runner = trained(cfg)
        torch.save(
            runner.model.state_dict(), Path(cfg.work_dir) / 'weights.pt'
        )
        # The evaluator gives nothing where nothing is detected.
        found = accuracies(runner, ['coco/bbox_mAP'], missing=0.0)
        return {subnet: 100 * value for subnet, value in found.items()}

    def report(self) -> str:
        """The table, of the seeds that are finished with both settings."""
        results = {run: self.result(run) for run in self.planned()}
        seeds = [
            seed
            for seed in range(SEEDS)
            if all(results[Run(w, self.epochs, seed)] for w in WEIGHTS)
        ]
        if not seeds:
            return 'no pair of runs is finished'
        cfg = self.config(Run(WEIGHTS[0], self.epochs, 0), self.out)
        model, shape = build_model(cfg), find_views(cfg).shape
        rows = [['box AP', 'MACs', *(f'distill={w:g}' for w in WEIGHTS)]]
        rows[0].append('difference')
        for subnet in map(Subnet.parse, cfg.test_cfg.subnets):
            found: List[List[float]] = [
                [results[Run(w, self.epochs, seed)][subnet] for seed in seeds]
                for w in WEIGHTS
            ]
            gains = [own - base for base, own in zip(*found)]
            rows.append(
                [
                    str(subnet),
                    f'{count_macs(model, subnet, shape) / 1e6:.0f} M',
                    *map(mean_std, found),
                    interval(gains),
                ]
            )
        return markdown_table(rows)


def main() -> None:
    parser = study_parser(__doc__, 'distill_detector')
    parser.add_argument(
        '--epochs', type=int, default=EPOCHS, help='default: %(default)s'
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    prepare_cpu()
    with one_line_errors():
        study = Distillation(make_folder(args.out), args.epochs)
        if not args.report:
            study.work()
        print(study.report())


if __name__ == '__main__':
    main()
