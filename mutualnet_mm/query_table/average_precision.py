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

    def average_precision(
        self, counts: np.ndarray, thresholds: slice = slice(None)
    ) -> np.ndarray:
        """Average precision of test sets with copies of these images.

        Of each class and threshold, precision is interpolated and read as
        pycocotools does it; the mean is over all thresholds and those classes
        that have an object. If all counts are 1, this is pycocotools' value.

        Args:
            counts (ndarray): How often each image is in each of B test sets,
                int, (B, N).
            thresholds (slice): Which of the overlaps. Defaults to all.

        Returns:
            ndarray: (B, ), from 0 to 1; -1 where there is no object at all,
            as in pycocotools.
        """
        sums = np.zeros(len(counts))
        numbers = np.zeros(len(counts), np.int64)
        right, ignored = self.right[thresholds], self.ignored[thresholds]
        for category, objects in enumerate(self.objects):
            number = counts @ objects
            found = np.flatnonzero(self.category == category)
            order = np.argsort(-self.score[found], kind='mergesort')
            found = found[order]
            step = max(1, _CHUNK // (len(found) + 1))
            for start in range(0, len(counts), step):
                part = slice(start, start + step)
                copies = counts[part][:, self.image[found]].astype(np.int64)
                for is_right, is_nothing in zip(right, ignored):
                    sums[part] += _interpolated(
                        copies,
                        is_right[found] & ~is_nothing[found],
                        ~is_right[found] & ~is_nothing[found],
                        number[part],
                        self.recalls,
                    )
            numbers += (number > 0) * len(right)
        return np.where(numbers, sums / np.maximum(numbers, 1), -1.0)


def _interpolated(
    copies: np.ndarray,
    right: np.ndarray,
    wrong: np.ndarray,
    objects: np.ndarray,
    recalls: np.ndarray,
) -> np.ndarray:
    """Mean precision at the recalls of one class; 0 without an object.

    Between two right detections precision only falls: it is enough to look at
    those. Copies of a detection follow each other, and only the last one of
    a right one can be read.
    """
    places = np.flatnonzero(right)
    if not len(places):
        return np.zeros(len(copies))
    hits = np.cumsum(copies[:, places], axis=1)
    misses = np.cumsum(copies * wrong, axis=1)[:, places]
    precision = hits / (misses + hits + np.spacing(1))
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / np.maximum(objects, 1)[:, None]
    # How many of the recalls are reached, and are first reached here.
    reached = np.searchsorted(recalls, recall.ravel(), side='right')
    reached = reached.reshape(recall.shape)
    new = np.diff(reached, axis=1, prepend=0)
    mean = (highest * new).sum(axis=1) / len(recalls)
    return np.where(objects > 0, mean, 0.0)


def one_of_each(number: int) -> np.ndarray:
    """Counts of the tested set itself, (1, N)."""
    return np.ones((1, number), np.int64)
