#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Run an experiment of the paper: train, test and draw its networks.

Each network is trained, then tested at its subnets (a stock one as it is);
curves of all are drawn into one figure, and report.md lists the best subnets
with their intervals. What is finished is kept: stopped at any time, the same
command goes on. --list shows the experiments, --dry-run the commands.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Dict, List, Mapping

from mmengine.config import Config
from paper_recipes import RECIPES, Member, Recipe
from paper_small import shrink

from mutualnet_mm import UsageError
from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.files import atomic_write, make_folder
from mutualnet_mm.query_table import load_table
from mutualnet_mm.subnet import SubnetSpace

ROOT = Path(__file__).resolve().parents[1]
_COMMAND, _FINISHED = 'command.txt', 'finished'  # in a step's folder
_SPACE = ('width_range', 'widths', 'resolution', 'frames')


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        'recipe', nargs='?', choices=sorted(RECIPES), metavar='RECIPE'
    )
    parser.add_argument(
        '--list', action='store_true', help='show what there is'
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='folder of everything, default: work_dirs/paper/RECIPE, with '
        '--small RECIPE-small',
    )
    parser.add_argument(
        '--gpus', type=int, default=1, help='of the training, default: 1'
    )
    parser.add_argument(
        '--start',
        nargs='+',
        default=[],
        metavar='LABEL=CHECKPOINT',
        help='checkpoints to start from, for transfer',
    )
    parser.add_argument(
        '--step', type=float, help="of the tables' widths, default: 0.05"
    )
    parser.add_argument(
        '--small',
        action='store_true',
        help='small images, generated data and two iterations: a try',
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='only print the commands'
    )
    return parser.parse_args()


class Experiment:
    """One recipe, in one folder.

    Args:
        recipe (Recipe): What is run.
        out (Path): Folder of everything.
        args (Namespace): Of the command line.
    """

    def __init__(self, recipe: Recipe, out: Path, args) -> None:
        self.recipe, self.out, self.args = recipe, out, args
        self.starts = dict(_pair(text) for text in args.start)
        labels = {m.label for m in recipe.members if m.starts}
        for label in self.starts:
            if label not in labels:
                raise UsageError(
                    f'--start {label}: use '
                    f'{" or ".join(sorted(labels)) or "none here"}'
                )

    def run(self) -> None:
        """Train, test and draw what is not there yet."""
        for member in self.recipe.members:
            if member.tests is None:
                self._train(member)
            self._test(member)
        if self.args.dry_run:
            return
        tables = self.tables()
        if tables:
            files = [str(self._folder(m) / 'table/table.json') for m in tables]
            labels = [m.label for m in tables]
            curves = self.out / 'curves.png'
            self._call(
                ['tools/plot_curves.py', *files, '--out', str(curves)]
                + ['--labels', *labels, '--describe']
            )
        with atomic_write(self.out / 'report.md') as file:
            file.write(self.report().encode())

    def tables(self) -> List[Member]:
        """Members that have a query table."""
        return [
            m
            for m in self.recipe.members
            if (self._folder(m) / 'table/table.json').is_file()
        ]

    def report(self) -> str:
        """The best subnets of each network, in Markdown."""
        lines = [
            f'# {self.recipe.shows}',
            '',
            '| network | subnet | MACs | metric | value | 95 % interval |',
            '|---|---|---|---|---|---|',
        ]
        for member in self.recipe.members:
            folder = self._folder(member)
            if (folder / 'table/table.json').is_file():
                table = load_table(folder / 'table/table.json')
                for entry in reversed(table.pareto):
                    interval = table.interval(entry)
                    cells = [
                        str(entry.subnet),
                        f'{entry.macs / 1e6:.2f} M',
                        table.metric,
                        f'{table.score(entry):.4g}',
                        '-'
                        if interval is None
                        else '{:.4g} to {:.4g}'.format(*interval),
                    ]
                    lines.append(_row(member.label, *cells))
            elif (folder / 'metrics.json').is_file():
                metrics = json.loads((folder / 'metrics.json').read_text())
                for name, value in metrics.items():
                    lines.append(
                        _row(member.label, '-', '-', name, f'{value:.4g}', '-')
                    )
        return '\n'.join(lines) + '\n'

    def _folder(self, member: Member) -> Path:
        return self.out / member.label.replace(' ', '-').replace('=', '')

    def _config(self, member: Member) -> Path:
        """Its config file; with --small, a smaller one that is written."""
        path = ROOT / 'configs' / f'{member.config}.py'
        if not self.args.small:
            return path
        cfg = self._read(member)
        options = self.recipe.small
        data = self.out / 'data'
        shrink(cfg, self.recipe.divisor, options, 2, data)
        small = make_folder(self._folder(member)) / 'small.py'
        with atomic_write(small) as file:
            file.write(cfg.pretty_text.encode())
        return small

    def _read(self, member: Member) -> Config:
        before = dict(os.environ)
        os.environ.update(member.environment)
        try:
            path = ROOT / 'configs' / f'{member.config}.py'
            return Config.fromfile(path)
        finally:
            os.environ.clear()
            os.environ.update(before)

    def _options(self, member: Member) -> List[str]:
        options = dict(member.options)
        start = self.starts.get(member.label)
        if start is not None and not self.args.small:
            options[str(member.starts)] = start
        if not options:
            return []
        return ['--cfg-options', *(f'{k}={v}' for k, v in options.items())]

    def _train(self, member: Member) -> None:
        folder = self._folder(member)
        if (
            member.starts
            and member.label not in self.starts
            and not self.args.small
        ):
            raise UsageError(
                f'{member.label} starts from a checkpoint: give it by '
                f'--start {member.label}=CHECKPOINT'
            )
        command = ['tools/train.py', str(self._config(member)), '--resume']
        command += ['--work-dir', str(folder), *self._options(member)]
        if self._once(folder, command, self.args.gpus, member.environment):
            # What others have tested of an earlier training is out of date.
            for other in self.recipe.members:
                if other.tests == member.label:
                    done = self._tested(other) / _FINISHED
                    done.unlink(missing_ok=True)

    def _test(self, member: Member) -> None:
        trained = next(
            self._folder(m)
            for m in self.recipe.members
            if m.label == (member.tests or member.label)
        )
        checkpoint = 'CHECKPOINT'
        if (trained / _FINISHED).is_file():
            checkpoint = (trained / 'last_checkpoint').read_text().strip()
        folder = self._tested(member)
        config = str(self._config(member))
        if folder.name == 'table':
            command = ['tools/build_table.py', config, checkpoint]
            command += ['--out', str(folder)]
            if self.args.small:
                command += self._ends(config)
            elif self.args.step is not None:
                command += ['--step', str(self.args.step)]
        else:
            command = ['tools/test.py', config, checkpoint, '--work-dir']
            command += [str(folder), '--out-item', 'metrics', '--out']
            command += [str(folder.parent / 'metrics.json')]
        command += self._options(member)
        self._once(folder, command, 1, member.environment)

    def _tested(self, member: Member) -> Path:
        """Folder of its test: of a query table, or of a stock network."""
        kind = 'table' if 'mutual' in self._read(member).model else 'test'
        return self._folder(member) / kind

    def _ends(self, config: str) -> List[str]:
        """Only the full subnet and the smallest one, if there are several."""
        mutual = Config.fromfile(config).model.mutual
        if mutual.get('single_subnet'):
            return []
        space = SubnetSpace(**{k: mutual[k] for k in _SPACE if k in mutual})
        return ['--subnet', str(space.full), str(space.smallest)]

    def _once(
        self,
        folder: Path,
        command: List[str],
        gpus: int,
        environment: Mapping[str, str],
    ) -> bool:
        """Run what has not finished in its folder, and say whether it ran.

        What another command has begun there is neither taken for the result
        of this one nor gone on with.
        """
        line = _line(command, gpus, environment)
        begun = folder / _COMMAND
        if begun.is_file() and begun.read_text() != line:
            raise UsageError(
                f'{folder} is of the command "{begun.read_text()}", which now '
                f'is "{line}": remove the folder, or give another --out'
            )
        if (folder / _FINISHED).is_file():
            return False
        if not self.args.dry_run:
            make_folder(folder)
            with atomic_write(begun) as file:
                file.write(line.encode())
        self._call(command, gpus, environment)
        if not self.args.dry_run:
            (folder / _FINISHED).touch()
        return True

    def _call(
        self,
        command: List[str],
        gpus: int = 1,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        print(f'$ {_line(command, gpus, environment)}', flush=True)
        if not self.args.dry_run:
            call(command, gpus, dict(environment))


def _line(
    command: List[str], gpus: int, environment: Mapping[str, str]
) -> str:
    variables = [f'{k}={v}' for k, v in environment.items()]
    launcher = ['python']
    if gpus > 1:
        launcher = ['torchrun', '--nproc_per_node', str(gpus)]
    return ' '.join([*variables, *launcher, *command])


def call(command: List[str], gpus: int, environment: Dict[str, str]) -> None:
    """Run a tool of this repository, in a process of its own."""
    launcher = [sys.executable]
    if gpus > 1:
        launcher += ['-m', 'torch.distributed.run']
        launcher += ['--nproc_per_node', str(gpus)]
    subprocess.run(
        [*launcher, str(ROOT / command[0]), *command[1:]],
        env=dict(os.environ, **environment),
        check=True,
    )


def _pair(text: str) -> tuple:
    label, _, checkpoint = text.partition('=')
    if not checkpoint:
        raise UsageError(f'--start {text}: write LABEL=CHECKPOINT')
    return label, checkpoint


def _row(*cells: str) -> str:
    return f'| {" | ".join(cells)} |'


def main() -> None:
    args = parse_args()
    if args.list or args.recipe is None:
        for name, recipe in RECIPES.items():
            print(f'{name:18} {recipe.shows}')
        return
    with one_line_errors():
        # A full run must not take a small one for finished.
        name = args.recipe + '-small' * args.small
        out = args.out or Path('work_dirs/paper') / name
        experiment = Experiment(RECIPES[args.recipe], out, args)
        try:
            experiment.run()
        except subprocess.CalledProcessError as error:
            sys.exit(f'error: a command ended with status {error.returncode}')
        if not args.dry_run:
            print(experiment.report(), end='')


if __name__ == '__main__':
    main()
