# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Metrics that keep more than their results, served for many subnets."""

import copy
from typing import Any, Dict, List, Sequence

import numpy as np
from torch import Tensor

_KEPT = (
    bool,
    int,
    float,
    str,
    type(None),
    list,
    dict,
    set,
    Tensor,
    np.ndarray,
)


class MetricState:
    """What one subnet has left in the metrics that all subnets share.

    One evaluator serves all, since it may hold gigabytes of ground truth.
    ``results`` are swapped as they are. Other attributes that a metric
    changes while it is shown predictions (counters, matrices, lists) are
    found at the first batch and kept for each subnet.

    Args:
        metrics (Sequence): The evaluator's metrics, before any batch.
    """

    def __init__(self, metrics: Sequence[Any]) -> None:
        self._metrics = metrics
        self._own: List[Dict[str, Any]] = [dict(results=[]) for _ in metrics]
        self._fresh = [_snapshot(metric) for metric in metrics]

    @property
    def results(self) -> List[Any]:
        """Results of each metric."""
        return [own['results'] for own in self._own]

    def __enter__(self) -> None:
        """Let the metrics continue where this subnet has left them."""
        for metric, own in zip(self._metrics, self._own):
            vars(metric).update(own)

    def __exit__(self, *error: Any) -> None:
        """Keep what has changed, and let the metrics be as they were."""
        for metric, own, fresh in zip(self._metrics, self._own, self._fresh):
            own['results'] = metric.results
            for name, value in vars(metric).items():
                if name == 'results' or not isinstance(value, _KEPT):
                    continue
                if name in own or not _same(value, fresh.get(name)):
                    own[name] = value
            for name in set(own) - {'results'}:
                if name in fresh:
                    setattr(metric, name, copy.copy(fresh[name]))
                else:
                    vars(metric).pop(name, None)


def _snapshot(metric: Any) -> Dict[str, Any]:
    return {
        name: _copied(value)
        for name, value in vars(metric).items()
        if name != 'results' and isinstance(value, _KEPT)
    }


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else copy.copy(value)


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, (Tensor, np.ndarray)):
        return a.shape == b.shape and bool((a == b).all())
    if isinstance(a, (list, dict, set)):
        # By identity: what they hold may not compare.
        items = (a.items(), b.items()) if isinstance(a, dict) else (a, b)
        return len(a) == len(b) and all(
            x is y or (isinstance(x, tuple) and x[1] is y[1])
            for x, y in zip(*items)
        )
    return a == b
