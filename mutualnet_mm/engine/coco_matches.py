# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Takes COCO's per-image results out of a stock evaluation."""

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from ..query_table.average_precision import Matches, one_of_each
from ..query_table.resampling import Values, drawn_counts

# Which values the stock metric sums up, the number of detections an image
# that they count (the first 100, or all), and the threshold they are of.
_ITEMS = dict(mAP=(False, None), mAP_50=(True, 0.5), mAP_75=(True, 0.75))
_EVALUATORS = ('COCOeval', 'COCOevalMP')


@contextmanager
def recorded_evaluations(metrics: Sequence[Any]) -> Iterator[List[Any]]:
    """Keep what the COCO evaluations of a ``with`` block leave behind.

    The stock metric makes the evaluation objects and drops them, though they
    hold what took the time: which detection is which object.

    Args:
        metrics (Sequence): Of the evaluator. Nothing is done without a
            ``CocoMetric`` among them.

    Yields:
        list: The evaluations, in order, as they end.
    """
    found: List[Any] = []
    if not any(map(_is_coco, metrics)):
        yield found
        return
    from mmdet.evaluation.metrics import coco_metric

    stock = {name: getattr(coco_metric, name) for name in _EVALUATORS}

    def keeping(evaluation: type) -> Any:
        def make(*args: Any, **kwargs: Any) -> Any:
            found.append(evaluation(*args, **kwargs))
            return found[-1]

        return make

    try:
        for name, evaluation in stock.items():
            setattr(coco_metric, name, keeping(evaluation))
        yield found
    finally:
        for name, evaluation in stock.items():
            setattr(coco_metric, name, evaluation)


def resampled_precision(
    evaluations: Sequence[Any], scores: Dict[str, Any], metrics: Sequence[Any]
) -> Dict[str, Values]:
    """Average precisions on drawn test sets, by the names of the metrics.

    Args:
        evaluations (Sequence): Of :func:`recorded_evaluations`.
        scores (dict): What the evaluator gave.
        metrics (Sequence): Of the evaluator.

    Returns:
        dict: Of those that are certain: what is computed for the test set
        itself is what the evaluator gave. None where several metrics use
        COCO's evaluation.
    """
    found: Dict[str, Values] = {}
    prefixes = [metric.prefix for metric in metrics if _is_coco(metric)]
    if len(prefixes) != 1:
        return found
    (prefix,) = prefixes
    for evaluation in evaluations:
        params = evaluation.params
        if not params.useCats or not evaluation.eval:
            continue
        computed: Dict[int, Tuple[np.ndarray, np.ndarray]] = {}
        for item, (counts_all, threshold) in _ITEMS.items():
            name = f'{prefix}/{params.iouType}_{item}'
            most = params.maxDets[2] if counts_all else 100
            if name not in scores or most not in params.maxDets:
                continue
            which = np.ones(len(params.iouThrs), bool)
            if threshold is not None:
                which = np.asarray(params.iouThrs) == threshold
                if which.sum() != 1:
                    continue
            # As many as there are of an image and class.
            most = min(most, _most_found(evaluation))
            if most not in computed:
                computed[most] = _on_all_sets(matches_of(evaluation, most))
            whole, drawn = (each[:, which] for each in computed[most])
            if round(float(whole.mean()), 3) != round(float(scores[name]), 3):
                continue
            # Sets without any object, which are the same for all subnets,
            # have no precision: others count twice.
            some = drawn.mean(axis=1)[drawn[:, 0] >= 0]
            if len(some):
                some = np.resize(some, len(drawn)).astype(np.float32)
                found[name] = tuple(some.tolist())
    return found


def _on_all_sets(matches: Matches) -> Tuple[np.ndarray, np.ndarray]:
    """Precisions of the tested set, (1, T), and of those that are drawn."""
    number = matches.objects.shape[1]
    return (
        matches.average_precision(one_of_each(number)),
        matches.average_precision(drawn_counts(number)),
    )


def _most_found(evaluation: Any) -> int:
    """Detections of the image and class that has the most."""
    found = (len(e['dtScores']) for e in evaluation.evalImgs if e is not None)
    return max(found, default=0)


def _is_coco(metric: Any) -> bool:
    return any(c.__name__ == 'CocoMetric' for c in type(metric).__mro__)


def matches_of(evaluation: Any, most: int) -> Matches:
    """Take what was found out of an evaluation, of objects of all sizes.

    Args:
        evaluation (COCOeval): After ``evaluate``.
        most (int): Detections that count, of each image and class.
    """
    params = evaluation._paramsEval
    images = list(params.imgIds)
    categories = list(params.catIds)
    shape = len(categories), len(params.areaRng), len(images)
    thresholds = len(params.iouThrs)
    right = [np.zeros((thresholds, 0), bool)]
    ignored = [np.zeros((thresholds, 0), bool)]
    image, category, score = [], [], []
    objects = np.zeros((shape[0], shape[2]), np.int64)
    for k in range(shape[0]):
        for i in range(shape[2]):
            # The first range of areas is that of all.
            one = evaluation.evalImgs[k * shape[1] * shape[2] + i]
            if one is None:
                continue
            objects[k, i] = np.count_nonzero(np.asarray(one['gtIgnore']) == 0)
            kept = one['dtScores'][:most]
            score.extend(kept)
            image.extend([i] * len(kept))
            category.extend([k] * len(kept))
            right.append(np.asarray(one['dtMatches'])[:, :most] != 0)
            ignored.append(np.asarray(one['dtIgnore'])[:, :most] != 0)
    return Matches(
        image=np.array(image, np.int64),
        category=np.array(category, np.int64),
        score=np.array(score, np.float64),
        right=np.concatenate(right, axis=1),
        ignored=np.concatenate(ignored, axis=1),
        objects=objects,
        recalls=np.asarray(params.recThrs),
    )
