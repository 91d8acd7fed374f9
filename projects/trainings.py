# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Many trainings, shared by processes, that go on where they were stopped."""

import fcntl
import json
import time
from argparse import ArgumentParser
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mutualnet_mm import Subnet
from mutualnet_mm.cli import tool_parser
from mutualnet_mm.errors import UsageError
from mutualnet_mm.files import atomic_write
from mutualnet_mm.query_table.answers import TOP1
from mutualnet_mm.subnet import split_metric


def study_parser(description: str, folder: str) -> ArgumentParser:
    """Parser of a study that trains, or only reports.

    Args:
        description (str): Of the script.
        folder (str): In ``work_dirs``, where runs and report go by default.
    """
    parser = tool_parser(description)
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs') / folder,
        help='where data, runs and report go, default: %(default)s',
    )
    parser.add_argument(
        '--report',
        action='store_true',
        help='only report what is finished so far',
    )
    return parser


class Trainings:
    """What a study trains, with the results in a folder.

    Args:
        out (Path): Each run has a folder ``out/runs/<str(run)>``.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def planned(self) -> Sequence[Optional[Any]]:
        """All runs; None for one that depends on others not finished."""
        raise NotImplementedError(type(self).__name__)

    def config(self, run: Any, folder: Path) -> Config:
        """The config of a run; it works in ``folder`` and tests subnets."""
        raise NotImplementedError(type(self).__name__)

    def prepared(self, run: Any, folder: Path) -> Config:
        """The config as it is trained.

        Without validation, and with checkpoints to go on from: of each epoch,
        or of each fiftieth of a training that counts iterations.
        """
        cfg = self.config(run, folder)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        checkpoint = dict(type='CheckpointHook', interval=1, max_keep_ckpts=1)
        if 'max_iters' in (cfg.get('train_cfg') or {}):
            interval = max(1, cfg.train_cfg.max_iters // 50)
            checkpoint.update(by_epoch=False, interval=interval)
        cfg.default_hooks = dict(
            cfg.get('default_hooks') or {}, checkpoint=checkpoint
        )
        cfg.log_level, cfg.resume = 'WARNING', False
        cfg.work_dir = str(folder)
        return cfg

    def result(self, run: Any) -> Optional[Dict[Subnet, float]]:
        """Accuracy by subnet, None before the run is finished."""
        found = self.found(run)
        return None if found is None else by_subnet(found)

    def is_done(self, run: Any) -> bool:
        """Whether there is nothing left to do for a run."""
        return bool(self.result(run))

    def found(self, run: Any) -> Optional[Any]:
        """What :meth:`train` returned, None before the run is finished."""
        file = self.out / 'runs' / str(run) / 'result.json'
        if not file.is_file():
            return None
        return json.loads(file.read_text())['accuracy']

    def finished_seeds(self) -> List[int]:
        """Seeds of which every run is finished; for runs with a ``seed``."""
        seeds = {run.seed for run in self.planned()}
        left = {run.seed for run in self.planned() if not self.result(run)}
        return sorted(seeds - left)

    def work(self) -> None:
        """Do what is left, together with other processes."""
        while True:
            runs = self.planned()
            left = [r for r in runs if r is None or not self.is_done(r)]
            if not left:
                return
            for run in left:
                if run is not None and self._do(run, len(runs), len(left)):
                    break
            else:  # others are at all that can be done now
                time.sleep(5)

    def _do(self, run: Any, total: int, left: int) -> bool:
        folder = self.out / 'runs' / str(run)
        folder.mkdir(parents=True, exist_ok=True)
        with try_lock(folder / 'lock') as mine:
            if not mine or self.is_done(run):
                return False
            print(f'[{total - left + 1}/{total}] {run}', flush=True)
            start = time.perf_counter()
            cfg = self.prepared(run, folder)
            if (folder / 'last_checkpoint').is_file():
                # What it began with is behind it.
                cfg.resume, cfg.load_from = True, None
            accuracy = self.train(cfg)
            result = dict(
                accuracy=accuracy, seconds=time.perf_counter() - start
            )
            with atomic_write(folder / 'result.json') as file:
                file.write(json.dumps(result, indent=1).encode())
            for file in folder.glob('*.pth'):
                file.unlink()
            print(f'    {result["seconds"]:.0f} s', flush=True)
        return True

    def train(self, cfg: Config) -> Any:
        """Train and test; return what is written as ``accuracy``."""
        return train(cfg)


def by_subnet(found: Dict[str, Any]) -> Dict[Subnet, Any]:
    """Read the names of subnets that something is by."""
    return {Subnet.parse(name): value for name, value in found.items()}


def train(cfg: Config) -> Dict[str, float]:
    """Train and test; return the accuracy of each subnet listed."""
    return accuracies(trained(cfg))


def trained(cfg: Config) -> Runner:
    """Train a config; return its runner."""
    runner = Runner.from_cfg(cfg)
    if cfg.default_scope == 'mmpretrain':
        # A quarter faster on a CPU, the same numbers.
        runner.model.to(memory_format=torch.channels_last)
    runner.train()
    return runner


def accuracies(runner: Runner) -> Dict[str, float]:
    """Test; return the top-1 accuracy of each subnet listed.

    Raises:
        UsageError: If a subnet has none.
    """
    return {
        subnet: pick_metric(subnet, metrics, tuple(TOP1))
        for subnet, metrics in subnet_metrics(runner).items()
    }


def subnet_metrics(runner: Runner) -> Dict[str, Dict[str, float]]:
    """Test; return the numbers of each subnet listed, by their stock names.

    Args:
        runner (Runner): Tests by a ``SubnetTestLoop``.
    """
    metrics = runner.test()
    tracked = str(runner.model.sampler.primary)
    found: Dict[str, Dict[str, float]] = {
        str(subnet): {} for subnet in runner.test_loop.subnets
    }
    for key, value in metrics.items():
        subnet, name = split_metric(key)
        own = found.get(subnet or tracked, {})
        # A confusion matrix, say, is no number.
        with suppress(TypeError, ValueError, RuntimeError):
            own[name] = float(value)
    return found


def pick_metric(
    subnet: str, metrics: Dict[str, float], names: Sequence[str]
) -> float:
    """Return the first metric of a subnet that has one of the names.

    Raises:
        UsageError: If there is none.
    """
    for name in names:
        if name in metrics:
            return metrics[name]
    raise UsageError(
        f'{" or ".join(names)} is not among the metrics of {subnet}: '
        f'{", ".join(metrics) or "there are none"}'
    )


@contextmanager
def try_lock(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a file for this process; the system frees it, come what may."""
    with open(path, 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
