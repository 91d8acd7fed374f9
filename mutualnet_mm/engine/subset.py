# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Evaluation on some images of the test set."""

import random
from typing import Any

from mmengine.evaluator import Evaluator

from ..errors import UsageError

# Where metrics keep ground truth of their own.
_TRUTH = ('_coco_api', 'ann_file', 'annos')
_OWN_TRUTH = ('_lvis_api', 'occluded_ann')
"""Such truth of COCO metrics, which has no regard for ``img_ids``."""


def keep_random(dataset: Any, num_images: int) -> None:
    """Cut a data set to some of its images, always the same ones.

    Args:
        dataset (Dataset): Cut in place, in its order.
        num_images (int): How many to keep.

    Raises:
        UsageError: If there are not so many, or if the data set cannot be
            cut (stock wrappers cannot).
    """
    number = len(dataset)
    if not 0 < num_images <= number:
        raise UsageError(
            f'number of images {num_images}: the test set has {number}, '
            f'so give 1 to {number}, or no number for all'
        )
    chosen = random.Random(0).sample(range(number), num_images)
    try:
        dataset.get_subset_(sorted(chosen))
    except (AttributeError, NotImplementedError) as error:
        raise UsageError(
            f'{type(dataset).__name__} cannot be cut to {num_images} images: '
            'evaluate all, or set `indices` of the data sets inside'
        ) from error


def limit_truth(evaluator: Evaluator, dataset: Any) -> None:
    """Tell metrics which images of their ground truth are evaluated.

    COCO metrics count the objects of images that never came as missed.

    Args:
        evaluator (Evaluator): Changed in place.
        dataset (Dataset): The images that come.

    Raises:
        UsageError: If a metric reads ground truth that cannot be limited.
    """
    for metric in evaluator.metrics:
        kinds = {cls.__name__ for cls in type(metric).__mro__}
        has_own = any(getattr(metric, name, None) for name in _OWN_TRUTH)
        if 'CocoMetric' in kinds and not has_own:
            metric.img_ids = [
                dataset.get_data_info(i)['img_id'] for i in range(len(dataset))
            ]
        elif has_own or any(getattr(metric, name, None) for name in _TRUTH):
            raise UsageError(
                f'{type(metric).__name__} compares with all of its '
                'annotations: evaluate all images'
            )
