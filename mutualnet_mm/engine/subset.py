# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Evaluation on some images of the test set."""

import random
from typing import Any

from mmengine.evaluator import Evaluator

from ..errors import UsageError
from .hooks import build_dataset

# Where metrics keep ground truth of their own.
_TRUTH = ('_coco_api', 'ann_file', 'annos')


def random_subset(dataset: dict, num_images: int) -> Any:
    """Build a data set and keep some of it, always the same ones.

    Args:
        dataset (dict): Config of the data set.
        num_images (int): How many to keep.

    Returns:
        Dataset: With its own ``metainfo``, in the original order.

    Raises:
        UsageError: If there are not so many, or if the data set cannot be
            cut (stock wrappers cannot).
    """
    built = build_dataset(dataset)
    if not 0 < num_images <= len(built):
        raise UsageError(
            f'number of images {num_images}: the test set has {len(built)}, '
            f'so give 1 to {len(built)}, or no number for all'
        )
    chosen = random.Random(0).sample(range(len(built)), num_images)
    try:
        built.get_subset_(sorted(chosen))
    except (AttributeError, NotImplementedError) as error:
        raise UsageError(
            f'{type(built).__name__} cannot be cut to {num_images} images: '
            'evaluate all, or set `indices` of the data sets inside'
        ) from error
    return built


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
        if 'CocoMetric' in kinds:
            metric.img_ids = [
                dataset.get_data_info(i)['img_id'] for i in range(len(dataset))
            ]
        elif any(getattr(metric, name, None) for name in _TRUTH):
            raise UsageError(
                f'{type(metric).__name__} compares with all of its '
                'annotations: evaluate all images'
            )
