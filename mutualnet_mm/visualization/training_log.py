# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Losses and metrics that MMEngine has logged, subnet by subnet."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple, Union

from ..errors import UsageError, is_number
from ..subnet import names_subnet, split_metric

FULL = 'full network'
RUNNING = 'full network, running statistics'

Curve = Dict[int, float]
"""Values by step, in order."""

# What a validation logs beside metrics.
_NO_METRICS = ('step', 'time', 'data_time')
_TOTAL = '/total'


@dataclass
class TrainingLog:
    """The curves of one training.

    Attributes:
        losses (dict): By subnet: ``'full network'``, ``'min'``, ``'rand1'``,
            over iterations. The full network's is the sum of its own losses,
            by MMEngine's default a mean over ten iterations; another
            subnet's, ``min/total``, is that of one iteration, not weighted.
        metrics (dict): By metric and subnet, ``'full network'``,
            ``'0.25x-128'``.
        unit (str): Of the metrics' steps, ``'epoch'`` or ``'iteration'``.
    """

    losses: Dict[str, Curve] = field(default_factory=dict)
    metrics: Dict[str, Dict[str, Curve]] = field(default_factory=dict)
    unit: str = 'iteration'


def read_training(path: Union[str, Path]) -> TrainingLog:
    """Read what the runs of a work dir have logged.

    A run that was resumed takes the place of what an earlier one had logged
    from there on; one that began anew, of all of it. Runs that only
    validate or test do not count.

    Args:
        path (str or Path): Work dir, with ``TIME/vis_data/scalars.json`` of
            each run, or one such file.

    Raises:
        UsageError: If there is no such file, if one cannot be read, or if no
            run has trained.
    """
    path = Path(path)
    files = (
        [path]
        if path.is_file()
        else sorted(path.glob('*/vis_data/scalars.json'))
    )
    if not files:
        raise UsageError(
            f'{str(path)!r} has no */vis_data/scalars.json: name the work dir '
            "of a training whose visualizer has a LocalVisBackend, MMEngine's "
            'default'
        )
    trained: List[Dict[str, Any]] = []
    validated: List[Dict[str, Any]] = []
    for file in files:
        steps, validations = _records(file)
        if steps:
            trained = [*_before(trained, steps), *steps]
            validated = [*_before(validated, validations), *validations]
    if not trained:
        raise UsageError(f'{str(path)!r} holds no training: nothing to draw')
    log = TrainingLog(unit=_unit(trained, validated))
    for record in trained:
        for subnet, loss in _losses(record):
            log.losses.setdefault(subnet, {})[record['step']] = loss
    for record in validated:
        for name, value in record.items():
            if name in _NO_METRICS or not is_number(value):
                continue
            named, metric = split_metric(name)
            whose = named or FULL
            if name.startswith('running/'):
                whose, metric = RUNNING, name.partition('/')[2]
            curves = log.metrics.setdefault(metric, {})
            curves.setdefault(whose, {})[record['step']] = value
    return log


def _records(
    file: Path,
) -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
    """Records of training steps and of validations, in order."""
    trained, validated = [], []
    lines = file.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            step = record['step']
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # the run was cut off
                break
            raise UsageError(
                f'line {number} of {str(file)!r} is not one that MMEngine '
                'logs: remove it, or name another work dir'
            ) from error
        del step
        if 'loss' in record:
            trained.append(record)
        elif not any(_is_sorted(name) for name in record):
            validated.append(record)
    return trained, validated


def _is_sorted(name: str) -> bool:
    """Whether SubnetCurveHook wrote this; the stock names are there, too."""
    return name.startswith('test/') or names_subnet(name.rpartition('/')[2])


def _before(
    earlier: List[Dict[str, Any]], later: List[Dict[str, Any]]
) -> List[Dict[str, Any]]:
    if not later:
        return earlier
    first = later[0]['step']
    return [record for record in earlier if record['step'] < first]


def _unit(
    trained: List[Dict[str, Any]], validated: List[Dict[str, Any]]
) -> str:
    """Metrics are logged by epoch, unless ``log_metric_by_epoch=False``."""
    epochs = max((record.get('epoch', 0) for record in trained), default=0)
    last = max((record['step'] for record in validated), default=0)
    return 'epoch' if last <= epochs else 'iteration'


def _losses(record: Dict[str, Any]) -> Iterator[Tuple[str, float]]:
    """Loss of each subnet in a training step, as far as it is finite."""
    full = record['loss']
    if 'loss_mutual' in record:  # holds what the others add
        full = full - record['loss_mutual']
    found = {FULL: full}
    for name, value in record.items():
        if name.endswith(_TOTAL):
            found[name[: -len(_TOTAL)]] = value
    return ((name, value) for name, value in found.items() if is_number(value))
