# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Files that predictions are written to, one for each subnet."""

from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Dict, Iterator

import mmengine
import numpy as np
import torch
from filelock import FileLock, Timeout
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS
from mmengine.runner import Runner

from ..errors import UsageError
from ..files import make_folder

_PICKLES = ('.pkl', '.pickle')
# What mmengine writes by the name of a file.
_SUFFIXES = dict(pred=_PICKLES, metrics=('.json', '.yaml', '.yml', *_PICKLES))


def check_out(path: str, item: str) -> None:
    """Refuse a file that could not be written when all is tested.

    Args:
        path (str): Its folder is made.
        item (str): ``'pred'`` or ``'metrics'``.

    Raises:
        UsageError: Names the suffixes that there are, or the folder.
    """
    suffixes = _SUFFIXES[item]
    if Path(path).suffix not in suffixes or Path(path).is_dir():
        what = 'predictions' if item == 'pred' else 'metrics'
        raise UsageError(
            f'--out {path}: {what} go to a file that ends in '
            f'{" or ".join(suffixes)}'
        )
    make_folder(Path(path).parent)


def dump_predictions(runner: Runner, path: str) -> None:
    """Let a test write the predictions too: ``--out``, ``--dump``.

    The full network's go to ``path``, those of a subnet to a file of its own
    beside it: ``found.pkl``, ``found.0.5x-360.pkl``. Masks are written as
    run-length codes for mmdet.

    Args:
        runner (Runner): Its test evaluator gets one more metric.
        path (str): A pickle file.
    """
    is_mmdet = runner.cfg.get('default_scope') == 'mmdet'
    kind = 'mmdet.DumpDetResults' if is_mmdet else 'DumpResults'
    runner.test_evaluator.metrics.append(
        METRICS.build(dict(type=kind, out_file_path=path))
    )


def dump_metrics(metrics: Dict[str, Any], path: str) -> None:
    """Write what a test found: ``--out-item metrics``.

    Args:
        metrics (dict): By name. Files of text have lists for tensors and
            arrays, as a confusion matrix, and text for what else they have no
            form for.
        path (str): Ends as :func:`check_out` says.
    """
    is_text = Path(path).suffix not in _PICKLES
    mmengine.dump(_plain(metrics) if is_text else metrics, path)


def _plain(value: Any) -> Any:
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    is_plain = value is None or isinstance(value, (bool, int, float, str))
    return value if is_plain else str(value)


_WRITING = 600
"""Seconds to wait for another process that evaluates."""
# Where metrics say it: prefixes and names of files, and folders.
_PLACES = (
    *('outfile_prefix', 'out_file_path', 'outfile_path', 'proposals_file'),
    *('seg_out_dir', 'output_dir'),
)


@contextmanager
def alone_in_folder(evaluator: Evaluator) -> Iterator[None]:
    """Let metrics write into the current folder while no other process does.

    mmaction2's for AVA names its file by the second alone, and reads it again.
    """
    kinds = {k.__name__ for m in evaluator.metrics for k in type(m).__mro__}
    if 'AVAMetric' not in kinds or not is_main_process():  # that one writes
        yield
        return
    lock = FileLock('.ava_metric.lock')
    # Better two at once than what is found lost.
    with suppress(Timeout, OSError, NotImplementedError):
        lock.acquire(timeout=_WRITING)
    try:
        yield
    finally:
        lock.release()


class separate_files:
    """Give what a subnet's predictions are written to names of its own.

    Some metrics write when they are shown predictions, others at the end:
    this is for both.

    Args:
        evaluator (Evaluator): Whose metrics write.
        suffix (str): Such as ``'.0.5x-360'``; empty for the stock names.

    Raises:
        UsageError: On entering, if a metric adds to a file that it began when
            it was built.
    """

    def __init__(self, evaluator: Evaluator, suffix: str) -> None:
        self.suffix = suffix
        self.metrics = evaluator.metrics
        self.before: list = []

    def __enter__(self) -> None:
        for metric in self.metrics if self.suffix else ():
            if getattr(metric, 'csv_path', None):
                raise UsageError(
                    f'{type(metric).__name__} adds the predictions of all '
                    f'subnets to one file, {metric.csv_path}: leave it out, '
                    'or test the full network alone'
                )
            is_joined = hasattr(metric, 'proposals_file')  # with its folder
            for name in _PLACES:
                path = getattr(metric, name, None)
                if path and not (is_joined and name == 'output_dir'):
                    self.before.append((metric, name, path))
                    named = self._named(str(path))
                    setattr(metric, name, named)
                    if Path(path).is_dir():  # metrics expect it to be there
                        Path(named).mkdir(exist_ok=True)

    def __exit__(self, *args: Any) -> None:
        for metric, name, path in self.before:
            setattr(metric, name, path)

    def _named(self, path: str) -> str:
        extension = Path(path).suffix
        if extension in (*_PICKLES, '.json', '.jsonl', '.panoptic'):
            return f'{path[: -len(extension)]}{self.suffix}{extension}'
        return f'{path}{self.suffix}'
