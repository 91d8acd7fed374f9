#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Is one setting better than another, over several seeds?

Trains a config with each setting and each seed, tests the subnets of its
test_cfg, and prints the metric of each, and what every setting gains over the
first one. Finished runs are kept: stopped at any time, it goes on where it
was. Each process uses one CPU thread; start it once per core, with the same
--out, and they share the runs.
"""

import copy
import re
from argparse import ArgumentError, ArgumentParser, Namespace
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, List, Optional, Sequence

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from report_tables import interval, markdown_table, mean_std
from trainings import (
    Trainings,
    by_subnet,
    pick_metric,
    study_parser,
    subnet_metrics,
    trained,
)

from mutualnet_mm import Subnet
from mutualnet_mm.apis import build_model, count_macs, load_config
from mutualnet_mm.cli import (
    ConfigOptions,
    add_cfg_options,
    count,
    one_line_errors,
)
from mutualnet_mm.config import check_training, find_views, make_runner
from mutualnet_mm.config.stock_errors import named_stock_errors
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.engine.loops import SubnetTestLoop
from mutualnet_mm.errors import UsageError
from mutualnet_mm.files import atomic_write, make_folder
from mutualnet_mm.query_table.answers import TOP1, top1_metric
from mutualnet_mm.query_table.front_steps import format_macs

SEEDS = 3
SETTINGS = 'settings.py'
"""Config of a run, in its folder."""


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
        config (str): File, or name in a package.
        settings (dict[str, dict]): What each setting overrides in the config,
            by its name. Gains are those over the first one.
        out (Path): Where the runs go.
        seeds (int): How many, from 0 on. Defaults to :data:`SEEDS`.
        metric (str, optional): Stock name of the metric in the table.
            Defaults to None: top-1 accuracy, in percent.
        percent (bool): Whether the metric is a share, which the table has in
            percent. Defaults to False.

    Raises:
        UsageError: If settings are fewer than two, equal, or name what the
            config has not; or if ``out`` has runs of a setting of this name
            that was another one.
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
        self.metric, self.percent = metric, percent
        if percent and metric is None:
            raise UsageError(
                'top-1 accuracy is in percent anyway: leave out --percent, or '
                'name a --metric'
            )
        self._check_settings()
        for run in self.planned():
            self._check_kept(run)

    def _check_settings(self) -> None:
        """Refuse settings that would be compared in vain."""
        if len(self.settings) < 2:
            raise UsageError(
                f'there is nothing to compare {", ".join(self.settings)} '
                'with: give two settings or more'
            )
        cfg = load_config(self.path, stages=())
        if cfg.model.get('mutual') is None:
            raise UsageError(
                f'the model of {self.path!r} is not adaptive, so that it has '
                'no subnets: mutualnet adapt makes such a config of it'
            )
        known = {*cfg, *signature(Runner).parameters}
        seen: Dict[str, str] = {}
        for name, options in self.settings.items():
            for key in options:
                if key in ('randomness.seed', 'model.mutual.seed'):
                    raise UsageError(
                        f'{key} of {name}: seeds are those of --seeds'
                    )
                if key.partition('.')[0] not in known:
                    raise UsageError(
                        f'{key} of {name}: {self.path!r} has no '
                        f'{key.partition(".")[0]}'
                    )
            content = self._content(Run(name, 0))
            if content in seen:
                raise UsageError(
                    f'{seen[content]} and {name} train the same: give '
                    'settings that differ'
                )
            seen[content] = name

    def _check_kept(self, run: Run) -> None:
        """Refuse to go on with a run that was begun with another config."""
        folder = self.out / 'runs' / str(run)
        kept = folder / SETTINGS
        is_begun = any(
            (folder / name).is_file()
            for name in ('result.json', 'last_checkpoint')
        )
        if not is_begun or not kept.is_file():
            return
        if kept.read_text(encoding='utf-8') != self._content(run):
            raise UsageError(
                f'{str(folder)!r} was trained with another config, which is '
                f'in its {SETTINGS}: name {run.setting} otherwise, or give '
                'another --out'
            )

    def _content(self, run: Run) -> str:
        return _without_place(self.prepared(run, self.out))

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
            # MMEngine takes `_delete_` out of it.
            **copy.deepcopy(self.settings[run.setting]),
            'model.mutual.seed': run.seed,
            'randomness.seed': run.seed,
        }
        return load_config(self.path, options, str(folder))

    def work(self) -> None:
        """Build what every setting trains and tests, then do what is left.

        Raises:
            UsageError: If one cannot be built, or not all of them test the
                same subnets.
        """
        tested: Dict[str, List[Subnet]] = {}
        for name in self.settings:
            with TemporaryDirectory() as folder:
                cfg = self.prepared(Run(name, 0), Path(folder))
                # Of its own: others would write their logs to this folder.
                cfg.experiment_name = Path(folder).name
                cfg.visualizer = dict(type='Visualizer', name=folder)
                tested[name] = built_to_train(cfg).test_loop.subnets
        first, *others = tested
        for name in others:
            if tested[name] != tested[first]:
                raise UsageError(
                    f'{first} tests {", ".join(map(str, tested[first]))}, '
                    f'{name} tests {", ".join(map(str, tested[name]))}: they '
                    'cannot be compared'
                )
        super().work()

    def train(self, cfg: Config) -> Dict[str, Dict[str, float]]:
        """Train, keep the weights, and test: all metrics of each subnet."""
        folder = Path(cfg.work_dir)
        if not cfg.get('resume'):  # else it is there
            with atomic_write(folder / SETTINGS) as file:
                file.write(_without_place(cfg).encode())
        runner = trained(cfg)
        torch.save(runner.model.state_dict(), folder / 'weights.pt')
        return subnet_metrics(runner)

    def result(self, run: Run) -> Optional[Dict[Subnet, float]]:
        """The metric by subnet, None before the run is finished.

        Raises:
            UsageError: If the evaluator does not give it.
        """
        found = self.found(run)
        if found is None:
            return None
        return by_subnet(
            {name: self._value(name, own) for name, own in found.items()}
        )

    def _value(self, subnet: str, metrics: Dict[str, float]) -> float:
        if self.metric is None:
            name = top1_metric(list(metrics)) or next(iter(TOP1))
            return pick_metric(subnet, metrics, [name]) * 100 / TOP1[name]
        if not metrics:  # of a detector that has detected nothing
            return 0.0
        value = pick_metric(subnet, metrics, [self.metric])
        if self.percent and value > 1:
            raise UsageError(
                f'{self.metric} of {subnet} is {value:.4g}, and no share: '
                'leave out --percent'
            )
        return 100 * value if self.percent else value

    def report(self) -> str:
        """The table, of the seeds that are finished with all settings."""
        seeds = self.finished_seeds()
        if not seeds:
            return 'no seed is finished with every setting'
        results = {
            name: [self.result(Run(name, seed)) for seed in seeds]
            for name in self.settings
        }
        subnets = list(next(iter(results.values()))[0])
        unit = ', %' if self.percent else ''
        head = f'{self.metric or "top-1"}{unit}'
        rows = [[head, *map(str, subnets)]]
        rows += self._costs(subnets)
        found = {
            name: [[result[s] for result in of_seeds] for s in subnets]
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
        left = [str(run) for run in self.planned() if not self.result(run)]
        unfinished = f' Not finished: {", ".join(left)}.' if left else ''
        return (
            f'{markdown_table(rows)}\n\n'
            f'Seeds {", ".join(map(str, seeds))}.{unfinished}'
        )

    def _costs(self, subnets: Sequence[Subnet]) -> List[List[str]]:
        """A row of costs; one for each setting where they differ."""
        rows = {}
        for name in self.settings:
            cfg = self.config(Run(name, 0), self.out)
            model, shape = build_model(cfg), find_views(cfg).shape
            rows[name] = [
                format_macs(count_macs(model, subnet, shape))
                for subnet in subnets
            ]
        first, *others = rows.values()
        if all(row == first for row in others):
            return [['MACs', *first]]
        return [[f'MACs, {name}', *row] for name, row in rows.items()]


def _without_place(cfg: Config) -> str:
    """Write a config down, but for its folder."""
    cfg = copy.deepcopy(cfg)
    cfg.pop('work_dir')
    return cfg.dump()


@named_stock_errors()
def built_to_train(cfg: Config) -> Runner:
    """Build all that a config trains and tests with, to see that it can be.

    Raises:
        UsageError: If it cannot, or if it tests no subnets.
    """
    check_training(cfg)
    runner = make_runner(cfg)
    _ = runner.train_loop  # built when it is asked for
    if not isinstance(runner.test_loop, SubnetTestLoop):
        raise UsageError(
            'subnets are not tested: set test_cfg=dict(type='
            "'mutualnet_mm.SubnetTestLoop')"
        )
    runner.optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    if cfg.get('param_scheduler'):
        runner.build_param_scheduler(cfg.param_scheduler)
    return runner


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
        settings[name] = getattr(own, self.dest, {})
        setattr(namespace, self.dest, settings)


def parse_args(args: Optional[Sequence[str]] = None) -> Namespace:
    parser = study_parser(__doc__, 'compare_settings')
    parser.usage = (
        '%(prog)s CONFIG --setting NAME [KEY=VALUE ...] '
        '--setting NAME [KEY=VALUE ...] [options]'
    )
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
        '--seeds',
        type=count,
        default=SEEDS,
        help='how many, from 0 on, default: %(default)s',
    )
    parser.add_argument(
        '--metric', help='such as coco/bbox_mAP, default: top-1 accuracy'
    )
    parser.add_argument(
        '--percent',
        action='store_true',
        help='the metric is a share, which the table has in percent',
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
