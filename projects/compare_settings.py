#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Is one setting better than another, over several seeds?

Trains a config with each setting and each seed, tests the subnets of its
test_cfg, and prints the metric of each, and what every setting gains over the
first one. Finished runs are kept: stopped at any time, it goes on where it
was. Each process uses one CPU thread; start it once per core, with the same
--out, and they share the runs.
"""

import re
from argparse import ArgumentError, ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import torch
from mmengine.config import Config
from report_tables import interval, markdown_table, mean_std
from trainings import (
    Trainings,
    study_parser,
    subnet_metrics,
    told,
    trained,
    try_lock,
)

from mutualnet_mm import Subnet
from mutualnet_mm.apis import build_model, count_macs, load_config
from mutualnet_mm.cli import ConfigOptions, add_cfg_options, one_line_errors
from mutualnet_mm.config import find_views
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.errors import UsageError
from mutualnet_mm.files import atomic_write, make_folder
from mutualnet_mm.query_table.answers import TOP1
from mutualnet_mm.query_table.front_steps import format_macs

SEEDS = 3


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        setting (str): Its name.
        seed (int): Of weights, order, augmentation and subnets.
    """

    setting: str
    seed: int

    def __str__(self) -> str:
        return f'{self.setting}_seed{self.seed}'


class Comparison(Trainings):
    """All runs.

    Args:
        config (str): File, or name in a package; its ``test_cfg`` lists the
            subnets that are tested.
        settings (dict[str, dict]): What each setting overrides in the config,
            by its name. Gains are those over the first one.
        out (Path): Where the runs go.
        seeds (int): How many. Defaults to :data:`SEEDS`.
        metric (str, optional): Stock name of what is told. Defaults to None:
            top-1 accuracy.
        percent (bool): Whether the metric is a share, and is told in percent.
            Defaults to False.

    Raises:
        UsageError: If settings are fewer than two or equal, if the config
            tests no subnets, or if ``out`` holds runs of a setting of this
            name that was another one.
    """

    def __init__(
        self,
        config: str,
        settings: Dict[str, Dict[str, Any]],
        out: Path,
        seeds: int = SEEDS,
        metric: Optional[str] = None,
        percent: bool = False,
    ) -> None:
        super().__init__(out)
        self.path, self.settings, self.seeds = config, settings, seeds
        self.metric, self.scale = metric, 100.0 if percent else 1.0
        if len(settings) < 2:
            raise UsageError(
                f'there is nothing to compare {", ".join(settings)} with: '
                'give two settings or more'
            )
        configs = {
            name: self.config(Run(name, 0), out / 'runs') for name in settings
        }
        self.first = next(iter(configs.values()))
        self.subnets: List[Subnet] = [
            Subnet.parse(name)
            for name in (self.first.get('test_cfg') or {}).get('subnets', [])
        ]
        if not self.subnets:
            raise UsageError(
                f'{config!r} tests no subnets: set test_cfg=dict(type='
                "'mutualnet_mm.SubnetTestLoop', subnets=[...])"
            )
        self._check_settings(configs)

    def _check_settings(self, configs: Dict[str, Config]) -> None:
        """Refuse what would be compared in vain, or taken for another."""
        seen: Dict[str, str] = {}
        for name, cfg in configs.items():
            content = cfg.dump()
            if content in seen:
                raise UsageError(
                    f'{seen[content]} and {name} are the same: give settings '
                    'that differ'
                )
            seen[content] = name
            build_model(cfg)  # rather now than after hours of the first one
            file = self.out / 'settings' / f'{name}.py'
            make_folder(file.parent)
            with try_lock(self.out / 'lock', wait=True):
                if not file.exists():
                    with atomic_write(file) as new:
                        new.write(content.encode())
                elif file.read_text(encoding='utf-8') != content:
                    raise UsageError(
                        f'{str(self.out)!r} has runs of another {name}, see '
                        f'{str(file)!r}: give another name, or another --out'
                    )

    def planned(self) -> Sequence[Run]:
        """Runs that differ in the setting alone, seed by seed."""
        return [
            Run(setting, seed)
            for seed in range(self.seeds)
            for setting in self.settings
        ]

    def config(self, run: Run, folder: Path) -> Config:
        """The config of a run."""
        options = {
            **self.settings[run.setting],
            'model.mutual.seed': run.seed,
            'randomness.seed': run.seed,
        }
        return load_config(self.path, options, str(folder))

    def train(self, cfg: Config) -> Dict[str, Dict[str, float]]:
        """Train, keep the weights, and test: all metrics of each subnet."""
        runner = trained(cfg)
        torch.save(
            runner.model.state_dict(), Path(cfg.work_dir) / 'weights.pt'
        )
        return subnet_metrics(runner)

    def result(self, run: Run) -> Optional[Dict[Subnet, float]]:
        """The metric by subnet, None before the run is finished.

        Raises:
            UsageError: If the evaluator gives others alone.
        """
        found = super().result(run)
        names = [self.metric] if self.metric else TOP1
        # That of detectors gives nothing where nothing is detected.
        return found and {
            subnet: told(str(subnet), metrics, names) if metrics else 0.0
            for subnet, metrics in found.items()
        }

    def report(self) -> str:
        """The table, of the seeds that are finished with all settings."""
        seeds = self.finished_seeds()
        if not seeds:
            return 'no seed is finished with every setting'
        model, shape = build_model(self.first), find_views(self.first).shape
        costs = [
            format_macs(count_macs(model, subnet, shape))
            for subnet in self.subnets
        ]
        rows = [['', *map(str, self.subnets)], ['MACs', *costs]]
        results = {
            name: [self.result(Run(name, seed)) for seed in seeds]
            for name in self.settings
        }
        found = {
            name: [
                [self.scale * result[subnet] for result in of_seeds]
                for subnet in self.subnets
            ]
            for name, of_seeds in results.items()
        }
        rows += [[name, *map(mean_std, v)] for name, v in found.items()]
        base, *others = found
        for name in others:
            gains = [
                interval([own - other for own, other in zip(*pair)])
                for pair in zip(found[name], found[base])
            ]
            rows.append([f'{name} over {base}', *gains])
        return markdown_table(rows)


class _Setting(ConfigOptions):
    """A name and what it overrides, into a dict of such dicts."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: Any,
        option_string: Any = None,
    ) -> None:
        name, *options = values
        settings = dict(getattr(namespace, self.dest) or {})
        if not re.fullmatch(r'[\w.-]+', name) or name in settings:
            raise ArgumentError(
                self, f'{name!r}: begin with a name of its own, such as "off"'
            )
        own = Namespace()
        super().__call__(parser, own, options, option_string)
        setattr(
            namespace,
            self.dest,
            {**settings, name: getattr(own, self.dest, {})},
        )


def parse_args(args: Optional[Sequence[str]] = None) -> Namespace:
    parser = study_parser(__doc__, 'compare_settings')
    parser.add_argument('config', help='as of mutualnet train')
    parser.add_argument(
        '--setting',
        nargs='+',
        action=_Setting,
        metavar=('NAME', 'KEY=VALUE'),
        required=True,
        help='a name, and what it overrides in the config; twice or more',
    )
    parser.add_argument(
        '--seeds', type=int, default=SEEDS, help='default: %(default)s'
    )
    parser.add_argument(
        '--metric', help='such as coco/bbox_mAP, default: top-1 accuracy'
    )
    parser.add_argument(
        '--percent',
        action='store_true',
        help='the metric is a share: tell it in percent',
    )
    add_cfg_options(parser)
    return parser.parse_args(args)


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    prepare_cpu()
    with one_line_errors():
        settings = {
            name: {**(args.cfg_options or {}), **own}
            for name, own in args.setting.items()
        }
        study = Comparison(
            args.config,
            settings,
            make_folder(args.out),
            args.seeds,
            args.metric,
            args.percent,
        )
        if not args.report:
            study.work()
        print(study.report())


if __name__ == '__main__':
    main()
