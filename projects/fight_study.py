# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What is trained on the clips, how, and what came out."""

import copy
import csv
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Dict, List, Optional

from mmengine.config import Config
from trainings import Trainings

from mutualnet_mm import Subnet
from mutualnet_mm.apis import build_model, count_macs, count_params
from mutualnet_mm.query_table import QueryTable, TableEntry, save_table
from mutualnet_mm.visualization import plot_tables

CONFIGS = Path(__file__).resolve().parents[1] / 'configs/video'
NETWORKS = ('slow', 'slowfast')
FOLDS = 5
METRIC = 'acc/top1'


@dataclass(frozen=True)
class Run:
    """One training: of all subnets together, or of a single one alone."""

    network: str
    method: str  # 'mutual', or a subnet
    fold: int

    def __str__(self) -> str:
        return f'{self.network}_{self.method}_fold{self.fold}'


class Study(Trainings):
    """Mutual learning against each subnet trained alone, fold by fold.

    Args:
        out (Path): Where clips, runs and the report go.
        epochs (int, optional): Defaults to the configs' own.
    """

    def __init__(self, out: Path, epochs: Optional[int] = None) -> None:
        super().__init__(out)
        self.epochs = epochs
        self.configs = {
            network: Config.fromfile(
                CONFIGS / f'mutual-{network}-r10_1xb10_fight-64px.py'
            )
            for network in NETWORKS
        }

    def planned(self) -> List[Run]:
        """All runs, so that whole folds are finished first."""
        return [
            Run(network, method, fold)
            for fold in range(FOLDS)
            for network in NETWORKS
            for method in ['mutual', *map(str, self.subnets(network))]
        ]

    def subnets(self, network: str) -> List[Subnet]:
        """Where a network is evaluated."""
        return list(map(Subnet.parse, self.configs[network].test_cfg.subnets))

    def config(self, run: Run, folder: Path) -> Config:
        """The network's config, made that of a run."""
        del folder
        cfg = copy.deepcopy(self.configs[run.network])
        if run.method != 'mutual':
            cfg.model.mutual.single_subnet = run.method
            cfg.test_cfg.subnets = [run.method]
        for loader, part in (
            (cfg.train_dataloader, 'train'),
            (cfg.test_dataloader, 'test'),
        ):
            loader.dataset.data_root = str(self.out / 'clips')
            loader.dataset.ann_file = f'fold{run.fold}_{part}.txt'
        if self.epochs is not None:
            cfg.train_cfg.max_epochs = self.epochs
            cfg.param_scheduler.T_max = cfg.param_scheduler.end = self.epochs
        cfg.randomness = dict(seed=run.fold)
        return cfg

    def tables(self) -> Dict[str, QueryTable]:
        """Mean accuracy over the finished folds, by network and method."""
        found = {}
        for network in NETWORKS:
            model = build_model(self.configs[network])
            scores: Dict[str, Dict[Subnet, List[float]]] = {}
            for run in self.planned():
                if run.network == network:
                    kind = 'mutual' if run.method == 'mutual' else 'alone'
                    for subnet, value in (self.result(run) or {}).items():
                        of_kind = scores.setdefault(kind, {})
                        of_kind.setdefault(subnet, []).append(value)
            for kind, values in scores.items():
                found[f'{network}, {kind}'] = QueryTable(
                    [
                        TableEntry(
                            subnet,
                            count_macs(model, subnet),
                            count_params(model, subnet),
                            {METRIC: sum(v) / len(v)},
                        )
                        for subnet, v in values.items()
                    ],
                    metric=METRIC,
                    task=model.task.name,
                    full=model.space.full,
                    num_images=self.num_tested(values),
                )
        return found

    def num_tested(self, values: Dict[Subnet, List[float]]) -> int:
        """Clips tested in the folds that are finished, at least."""
        folds = min(map(len, values.values()))
        lists = [f'clips/fold{i}_test.txt' for i in range(folds)]
        return sum(
            len((self.out / name).read_text().splitlines()) for name in lists
        )

    def report(self) -> str:
        """Write tables and figure; return the table in Markdown."""
        tables = self.tables()
        for label, table in tables.items():
            save_table(table, self.out / f'{label.replace(", ", "-")}.json')
        plot_tables(tables, self.out / 'curves.png', log=True)
        with open(self.out / 'accuracy.csv', 'w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(['network', 'method', 'fold', 'subnet', 'top1'])
            for run in self.planned():
                for subnet, value in (self.result(run) or {}).items():
                    writer.writerow([*astuple(run), subnet, f'{value:.2f}'])
        lines = [
            '| network | subnet | MACs of a view | together | alone |',
            '|---|---|---|---|---|',
        ]
        for network in NETWORKS:
            model = build_model(self.configs[network])
            together, alone = (
                _cells(tables.get(f'{network}, {kind}'))
                for kind in ('mutual', 'alone')
            )
            for subnet in self.subnets(network):
                macs = f'{count_macs(model, subnet) / 1e6:.1f} M'
                cells = together.get(subnet, '-'), alone.get(subnet, '-')
                row = (network, str(subnet), macs, *cells)
                lines.append(f'| {" | ".join(row)} |')
        text = '\n'.join(lines) + '\n'
        (self.out / 'report.md').write_text(text)
        return text


def _cells(table: Optional[QueryTable]) -> Dict[Subnet, str]:
    """Accuracy in percent with its 95 % interval, by subnet."""
    if table is None:
        return {}
    cells = {}
    for entry in table.entries:
        score, interval = table.score(entry), table.interval(entry)
        cells[entry.subnet] = f'{100 * (score or 0):.0f}'
        if interval is not None:
            low, high = (100 * x for x in interval)
            cells[entry.subnet] += f' ({low:.0f} to {high:.0f})'
    return cells
