# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""COCO's average precision on test sets that are drawn from the tested one."""

from dataclasses import dataclass

import numpy as np

_CHUNK = 1 << 22  # numbers of an array in memory at the same time


@dataclass(frozen=True)
class Matches:
    """What COCO's evaluation found in each image, before it adds them up.

    Detections of all images and classes are listed one after the other, by
    image, and in each image by class and falling score.

    Args:
        image (ndarray): Number of the image of each of D detections, int.
        category (ndarray): Number of its class, int.
        score (ndarray): How sure it is.
        right (ndarray): Whether it is an object, at each of T thresholds of
            the overlap: bool, (T, D).
        ignored (ndarray): Whether it counts as nothing, as within a crowd:
            bool, (T, D).
        objects (ndarray): Objects of K classes in N images, int, (K, N).
        recalls (ndarray): Recalls that precision is read at, rising.
    """

    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    right: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray
    recalls: np.ndarray

    def average_precision(self, counts: np.ndarray) -> np.ndarray:
        """Average precision of test sets with copies of these images.

        Of each class and threshold, precision is interpolated and read as
        pycocotools does it; the mean is over those classes that have an
        object. If all counts are 1, this is pycocotools' value.

        Args:
            counts (ndarray): How often each image is in each of B test sets,
                int, (B, N).

        Returns:
            ndarray: (B, T), from 0 to 1; -1 where there is no object at all,
            as in pycocotools.
        """
        sums = np.zeros((len(counts), len(self.right)))
        numbers = np.zeros((len(counts), 1), np.int64)
        for category, objects in enumerate(self.objects):
            number = counts @ objects
            numbers[:, 0] += number > 0
            found = np.flatnonzero(self.category == category)
            order = np.argsort(-self.score[found], kind='mergesort')
            found = found[order]
            places = np.flatnonzero(self.right[:, found].any(axis=0))
            if not len(places):
                continue
            found = found[: places[-1] + 1]  # what follows is never read
            reached = _reached(number, self.recalls)
            step = max(1, _CHUNK // len(found))
            for start in range(0, len(counts), step):
                part = slice(start, start + step)
                sums[part] += _interpolated(
                    counts[part][:, self.image[found]],
                    self.right[:, found],
                    self.ignored[:, found],
                    reached[part],
                ) / len(self.recalls)
        return np.where(numbers, sums / np.maximum(numbers, 1), -1.0)


def _reached(objects: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    """How many recalls are reached by 0, 1, 2, ... of the objects, (B, most).

    None are where there is no object.
    """
    reached = np.zeros((len(objects), objects.max(initial=0) + 1), np.int16)
    for number in np.unique(objects[objects > 0]):
        recall = np.arange(number + 1) / number
        rows = np.flatnonzero(objects == number)
        row = np.searchsorted(recalls, recall, side='right')
        reached[rows, : number + 1] = row
    return reached


def _interpolated(
    copies: np.ndarray,
    right: np.ndarray,
    ignored: np.ndarray,
    reached: np.ndarray,
) -> np.ndarray:
    """Sum of the precision at all recalls of one class, (B, T).

    Between two right detections precision only falls: it is enough to look at
    those. Copies of a detection follow each other, and only the last one of
    a right one can be read.
    """
    sums = np.zeros((len(copies), len(right)))
    rows = np.arange(len(copies))[:, None]
    seen = np.cumsum(copies, axis=1, dtype=np.int32)
    for t, (is_right, is_nothing) in enumerate(zip(right, ignored)):
        places = np.flatnonzero(is_right & ~is_nothing)
        if not len(places):
            continue
        hits = np.cumsum(copies[:, places], axis=1, dtype=np.int32)
        counted = seen[:, places]
        if is_nothing.any():
            nothing = copies * is_nothing
            counted = counted - np.cumsum(nothing, axis=1)[:, places]
        precision = hits / (counted + np.spacing(1))
        highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # How many of the recalls are first reached here.
        new = np.diff(reached[rows, hits], axis=1, prepend=np.int16(0))
        sums[:, t] = np.einsum('ij,ij->i', highest, new)
    return sums


def one_of_each(number: int) -> np.ndarray:
    """Counts of the tested set itself, (1, N)."""
    return np.ones((1, number), np.int64)
