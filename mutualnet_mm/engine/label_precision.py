# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Average precision of many labels on drawn test sets, by the stock metric."""

import math
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ..query_table.resampling import NUMBER, Values, drawn_counts

# What the metrics of the projects call it, by the class of the metric.
_NAMES = dict(
    AveragePrecision=('mAP',),
    AccMetric=('mean_average_precision', 'mmit_mean_average_precision'),
)
_MOST = 10**6
"""Scores of a test set. That many take some 40 seconds for each subnet."""


def resampled_label_precision(
    results: Sequence[List[dict]],
    scores: Dict[str, Any],
    metrics: Sequence[Any],
) -> Dict[str, Values]:
    """Average precisions on drawn test sets, by the names of the metrics.

    The metric itself computes each of them from its own results, of mmpretrain
    (``multi-label/mAP``) and mmaction2 (``acc/mean_average_precision``).

    Args:
        results (Sequence): What each metric has kept of all images.
        scores (dict): What the evaluator gave.
        metrics (Sequence): Of the evaluator.

    Returns:
        dict: Of those that are certain: what is computed for the test set
        itself is what the evaluator gave. None of more than a million scores
        (images times classes), which would take longer than the tests.
    """
    found: Dict[str, Values] = {}
    for metric, own in zip(metrics, results):
        kinds = (kind.__name__ for kind in type(metric).__mro__)
        keys = [key for kind in kinds for key in _NAMES.get(kind, ())]
        for key in keys:
            name = f'{metric.prefix}/{key}' if metric.prefix else key
            if name in scores and 0 < _number_of_scores(own) <= _MOST:
                values = _on_drawn_sets(metric, key, own, scores[name])
                if values:
                    found[name] = values
    return found


def _number_of_scores(results: List[dict]) -> int:
    """Zero where results are not those of images with scores of classes."""
    first = next(iter(results), {})
    kept: Any = first.get('pred_score', first.get('pred'))
    return len(results) * len(kept) if np.ndim(kept) == 1 else 0


def _classes_of(results: List[dict]) -> Optional[np.ndarray]:
    """Which classes each image has (images x classes, bool), in mmpretrain.

    None of mmaction2, whose metric leaves out classes without an image.
    """
    if 'gt_score' not in results[0]:
        return None
    return np.stack([np.asarray(r['gt_score']) > 0 for r in results])


def _on_drawn_sets(
    metric: Any, key: str, results: List[dict], score: Any
) -> Values:
    known = _classes_of(results)

    def of(images: np.ndarray) -> float:
        chosen = [results[i] for i in images]
        value = float(metric.compute_metrics(chosen)[key])
        if known is None:
            return value
        # Classes that a set does not have count 0 there: by no fault of the
        # network, and more so the rarer they are.
        number = known[images].any(0).sum()
        return value * known.any(0).sum() / number if number else math.nan

    every = np.arange(len(results))
    if not math.isclose(of(every), float(score), rel_tol=1e-5):
        return ()  # a test set of another length
    drawn = (of(every.repeat(row)) for row in drawn_counts(len(results)))
    values = [value for value in drawn if math.isfinite(value)]
    if not values:
        return ()
    # Sets without any label, which are the same for all subnets, have no
    # precision: others count twice.
    return tuple(np.resize(values, NUMBER).astype(np.float32).tolist())
