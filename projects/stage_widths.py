#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Are subnets with a width for each stage better than those with one for all?

Trains ResNet-14 on the cluttered digits of the quick start, with a width for
each stage and with one for all, and builds query tables on every second test
image: of a grid of one width, and of widths that are searched. What each table
chooses within a budget is tested on the other images. Finished runs are kept:
stopped at any time, it goes on where it was. Each process uses one CPU thread;
start it once per core, with the same --out, and they share the runs.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np
import torch
from mmengine.config import Config
from report_tables import interval, markdown_table, mean_std
from trainings import Trainings, study_parser, trained, try_lock

from mutualnet_mm import Subnet
from mutualnet_mm.apis import build_table, load_config, search_widths
from mutualnet_mm.cli import one_line_errors
from mutualnet_mm.datasets.cluttered_digits import make_cluttered_digits
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.files import make_folder
from mutualnet_mm.query_table import QueryTable, load_table

CONFIG = (
    Path(__file__).resolve().parents[1]
    / 'configs/classification'
    / 'mutual-resnet14_1xb64_cluttered-digits.py'
)
STAGES, SEEDS = 3, 3
BUDGETS = np.geomspace(0.3e6, 7.2e6, 16)
"""Multiply-accumulates, from about the smallest subnet to the full one."""
NUM_SEARCHED, FIRST_STEP = 48, 0.25
"""Subnets that are searched, and the step of the grid where that begins."""
TABLES = {
    'one width': (1, 'grid'),
    'stages, one width': (STAGES, 'grid'),
    'stages, searched': (STAGES, 'searched'),
}
"""What is compared: ``mutual.stages`` of the training, and the table."""
PAIRS = {
    'by the training': ('stages, one width', 'one width'),
    'by the search': ('stages, searched', 'stages, one width'),
    'by both': ('stages, searched', 'one width'),
}
"""Gains that are told: which of them over which."""


@dataclass(frozen=True)
class Run:
    """One training, and the tables of its subnets.

    Args:
        stages (int): As in ``mutual``.
        seed (int): Of weights, order, subnets and search.
    """

    stages: int
    seed: int

    def __str__(self) -> str:
        return f'stages{self.stages}_seed{self.seed}'


class StageWidths(Trainings):
    """All runs.

    Args:
        out (Path): Where images, runs and tables go.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        with try_lock(out / 'lock', wait=True):
            self.data = make_cluttered_digits(out / 'cluttered_digits')

    def planned(self) -> Sequence[Run]:
        """Pairs that differ in ``stages`` alone, seed by seed."""
        return [
            Run(stages, seed)
            for seed in range(SEEDS)
            for stages in (1, STAGES)
        ]

    def config(self, run: Run, folder: Path) -> Config:
        """The config of a run."""
        options: Dict[str, Any] = {
            'model.mutual.stages': run.stages,
            'model.mutual.seed': run.seed,
            'randomness.seed': run.seed,
        }
        for stage in ('train', 'val', 'test'):
            options[f'{stage}_dataloader.dataset.data_root'] = str(self.data)
        return load_config(str(CONFIG), options, str(folder))

    def train(self, cfg: Config) -> Dict[str, float]:
        """Train, and choose on one half of the test images.

        Returns:
            dict[str, float]: Top-1 accuracy, on the other half, of what the
            tables choose and of the subnets that the config tests.
        """
        folder = Path(cfg.work_dir)
        runner = trained(cfg)
        weights = folder / 'weights.pt'
        torch.save(runner.model.state_dict(), weights)
        number = len(runner.test_dataloader.dataset)
        choosing, judging = halves(cfg, number)
        settings: Dict[str, Any] = dict(checkpoint=str(weights))
        tables = [
            build_table(choosing, out=folder / 'grid', step=0.05, **settings)
        ]
        if cfg.model.mutual.stages > 1:
            tables.append(
                search_widths(
                    choosing,
                    out=str(folder / 'searched'),
                    number=NUM_SEARCHED,
                    step=FIRST_STEP,
                    seed=cfg.model.mutual.seed,
                    **settings,
                )
            )
        names = [
            *(str(s) for table in tables for s in choices(table)),
            *cfg.test_cfg.subnets,
        ]
        found = build_table(
            judging,
            out=folder / 'judged',
            subnets=list(dict.fromkeys(names)),
            **settings,
        )
        return {str(e.subnet): found.score(e) for e in found.entries}

    def report(self) -> str:
        """Accuracy by budget, of the seeds that are finished with both."""
        seeds = self.finished_seeds()
        if not seeds:
            return 'no pair of runs is finished'
        scores: Dict[str, np.ndarray] = {}  # (seeds, budgets)
        for name, (stages, table) in TABLES.items():
            rows = []
            for run in (Run(stages, seed) for seed in seeds):
                file = self.out / 'runs' / str(run) / table / 'table.json'
                chosen = choices(load_table(file))
                result = self.result(run)
                rows.append([result[subnet] for subnet in chosen])
            scores[name] = np.array(rows)
        lines = [['MMACs', *scores, *(f'gain {name}' for name in PAIRS)]]
        columns = {
            f'{budget / 1e6:.2f}': {n: s[:, i] for n, s in scores.items()}
            for i, budget in enumerate(BUDGETS)
        }
        columns['mean'] = {n: s.mean(axis=1) for n, s in scores.items()}
        for head, values in columns.items():
            gains = [
                values[own] - values[base] for own, base in PAIRS.values()
            ]
            lines.append(
                [
                    head,
                    *(mean_std(v.tolist()) for v in values.values()),
                    *(interval(gain.tolist()) for gain in gains),
                ]
            )
        return markdown_table(lines)


def choices(table: QueryTable) -> List[Subnet]:
    """What a table chooses, of each budget."""
    return [table.best(macs=budget).subnet for budget in BUDGETS]


def halves(cfg: Config, number: int) -> List[Config]:
    """Configs that test on every second image, from the 1st or the 2nd.

    Args:
        cfg (Config): Tests on all of them.
        number (int): Of the images.
    """
    found = []
    for first in range(2):
        half = copy.deepcopy(cfg)
        indices = list(range(first, number, 2))
        half.test_dataloader.dataset.indices = indices
        found.append(half)
    return found


def main() -> None:
    args = study_parser(__doc__, 'stage_widths').parse_args()
    torch.set_num_threads(1)
    prepare_cpu()
    with one_line_errors():
        study = StageWidths(make_folder(args.out))
        if not args.report:
            study.work()
        print(study.report())


if __name__ == '__main__':
    main()
