# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Metrics that keep more than their results, served for many subnets."""

import copy
from collections import deque
from typing import Any, Dict, Iterator, List, Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor, nn

from ..errors import UsageError

_PLAIN = (bool, int, float, str, type(None))
_ARRAYS = (Tensor, np.ndarray)
_ROWS = (list, tuple, deque)
_CONTAINERS = (*_ROWS, dict, set)
_KEPT = (*_PLAIN, *_ARRAYS, *_CONTAINERS)
# Of the data set, whatever the subnet: evaluators may set it but once.
_SHARED = '_dataset_meta'
_LARGE, _DEEP = 10000, 8
# What a network learns: buffers are looked at, and it is not copied.
_WEIGHTS = ('_parameters', '_buffers', '_modules')


class MetricState:
    """What one subnet has left in the metrics that all subnets share.

    One evaluator serves all, since it may hold gigabytes of ground truth.
    Attributes that a metric changes while it is shown predictions (its
    results, counters, arrays, tensors, containers of these) are kept for each
    subnet, and so is what it makes in place of None. Those that it does not
    change, and other objects, are shared. Metrics that a metric holds, such
    as those of several tasks, are kept as it is.

    Args:
        metrics (Sequence): The evaluator's metrics, before any batch.
        shared (bool): Whether other subnets use them in turn. Defaults to
            True.
    """

    def __init__(self, metrics: Sequence[Any], shared: bool = True) -> None:
        self._number = len(metrics)
        self._metrics = _with_inner(metrics)
        self._own: List[Dict[str, Any]] = [
            dict(results=type(metric.results)()) for metric in self._metrics
        ]
        self._fresh = [
            {k: _copied(v) for k, v in vars(m).items() if isinstance(v, _KEPT)}
            for m in self._metrics
        ]
        # What is inside of other objects cannot be kept apart.
        self._inside = [_inside(m) for m in self._metrics] if shared else []

    @property
    def results(self) -> List[Any]:
        """Results of each metric of the evaluator."""
        return [own['results'] for own in self._own[: self._number]]

    def __enter__(self) -> None:
        """Let the metrics continue where this subnet has left them."""
        for metric, own in zip(self._metrics, self._own):
            vars(metric).update(own)

    def __exit__(self, *error: Any) -> None:
        """Keep what has changed, and let the metrics be as they were.

        Raises:
            UsageError: If a metric keeps state where it cannot be found.
        """
        for metric, own, fresh in zip(self._metrics, self._own, self._fresh):
            for name, value in [*vars(metric).items()]:
                if name == _SHARED:
                    continue
                is_kept = isinstance(value, _KEPT) or (
                    name in fresh and fresh[name] is None
                )
                if name in own or (
                    is_kept
                    and not (name in fresh and _same(value, fresh[name]))
                ):
                    own[name] = value
                    if name in fresh:
                        vars(metric)[name] = _copied(fresh[name])
                    else:
                        del vars(metric)[name]
        # Once, after the first batch: before hours of work, not after them.
        inside, self._inside = self._inside, []
        for metric, before in zip(self._metrics, inside):
            for name, values in _inside(metric).items():
                if not _same(values, before.get(name, values)):
                    raise UsageError(
                        f'{type(metric).__name__} keeps state inside of its '
                        f'{name}, which the subnets of a group would share: '
                        'set group_size=1 in val_cfg and test_cfg'
                    )


def _with_inner(metrics: Sequence[Any]) -> List[Any]:
    """The metrics, and behind them all that they hold."""
    found = list(metrics)
    for metric in found:  # it grows
        for value in vars(metric).values():
            for inner in _objects(value):
                is_new = all(inner is not other for other in found)
                if isinstance(inner, BaseMetric) and is_new:
                    found.append(inner)
    return found


def _objects(value: Any) -> Iterator[Any]:
    """Yield what a value is, or has in containers, beside numbers and text."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (*_ROWS, set)):
        for item in value:
            yield from _objects(item)
    elif not isinstance(value, (*_PLAIN, *_ARRAYS, type)):
        yield value


def _inside(metric: Any) -> Dict[str, List[Dict[str, Any]]]:
    """What changes, if they do, of the objects that a metric holds."""
    found = {
        name: [
            _contents(inner)
            for inner in _objects(value)
            if not isinstance(inner, BaseMetric) and hasattr(inner, '__dict__')
        ]
        for name, value in vars(metric).items()
    }
    return {name: contents for name, contents in found.items() if contents}


def _contents(thing: Any) -> Dict[str, Any]:
    """Numbers and arrays of an object, and what its containers hold.

    Of large ones how much that is: they may be the data set's truth.
    """
    parts = {'': vars(thing)}
    if isinstance(thing, nn.Module):
        parts = {name: vars(part) for name, part in thing.named_modules()}
        parts['buffers'] = dict(thing.named_buffers())
    found = {}
    for name, part in parts.items():
        for key, value in part.items():
            if key in _WEIGHTS and isinstance(thing, nn.Module):
                continue
            if isinstance(value, (*_PLAIN, *_ARRAYS)):
                found[f'{name}.{key}'] = _copied(value)
            elif isinstance(value, _CONTAINERS):
                is_plain = _held(value, _LARGE, _DEEP) < _LARGE
                found[f'{name}.{key}'] = (
                    _copied(value) if is_plain else len(value)
                )
    return found


def _held(value: Any, limit: int, deep: int) -> int:
    """Count the values of a container, up to a limit.

    Those that are nested too deep count as large: they may hold themselves,
    as nodes hold their parents.
    """
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (*_ROWS, set)):
        return 1
    number = 0 if deep else limit
    for item in value:
        if number >= limit:
            break
        number += _held(item, limit - number, deep - 1)
    return number


def _copied(value: Any) -> Any:
    """Copy containers and arrays, however deep, but no other objects."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        new = copy.copy(value)
        new.update({key: _copied(item) for key, item in value.items()})
        return new
    if type(value) in _ROWS:
        rows = map(_copied, value)
        if isinstance(value, deque):
            return deque(rows, value.maxlen)
        return type(value)(rows)
    return copy.copy(value) if isinstance(value, _KEPT) else value


def _equal_values(a: Any, b: Any) -> bool:
    """Also where both hold NaN, which is no number that has changed."""
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _equal_arrays(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype == object:
        return all(map(_same, a.ravel(), b.ravel()))
    return _equal_values(a, b)


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return (
            a.device == b.device and a.shape == b.shape and _equal_values(a, b)
        )
    if isinstance(a, np.ndarray):
        return _equal_arrays(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, _ROWS):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, (*_PLAIN, set)) and a == b
