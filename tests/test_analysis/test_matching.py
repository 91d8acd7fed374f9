"""Which detections are of one object, by boxes made by hand."""

import itertools

import numpy as np
import pytest
import torch

from mutualnet_mm.analysis.matching import unmatched


def detections(*rows):
    """Of ``(x1, y1, x2, y2, label, score)``."""
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return rows[:, :4], rows[:, 4].long(), rows[:, 5]


ONE = (0, 0, 10, 10, 3, 0.9)


@pytest.mark.parametrize(
    'first, second, expected',
    [
        ([ONE], [(0, 0, 10, 8, 3, 0.5)], ([], [])),  # IoU 0.8
        ([ONE], [(0, 0, 10, 8, 2, 0.5)], ([0], [0])),  # another class
        ([ONE], [(0, 0, 10, 4, 3, 0.5)], ([0], [0])),  # IoU 0.4
        ([ONE], [], ([0], [])),
        ([], [ONE], ([], [0])),
        ([], [], ([], [])),
        # Found twice: one of them is the other's.
        ([ONE, (0, 0, 10, 9, 3, 0.8)], [ONE], ([1], [])),
        # The surer one chooses first, whatever the order.
        ([(0, 0, 10, 9, 3, 0.8), ONE], [(0, 0, 10, 9, 3, 0.5)], ([0], [])),
        # Of several, the one of the largest overlap.
        ([ONE], [(0, 0, 10, 6, 3, 0.9), (0, 0, 10, 9, 3, 0.1)], ([], [0])),
    ],
)
def test_by_hand(first, second, expected):
    assert unmatched(detections(*first), detections(*second)) == expected


def test_matched_pairs_overlap():
    """Of many random boxes, against an own count of what can be paired."""
    rng = np.random.default_rng(0)

    def draw(number):
        corners = rng.uniform(0, 30, (number, 2))
        sides = rng.uniform(5, 20, (number, 2))
        labels = rng.integers(0, 2, (number, 1))
        scores = rng.uniform(0.3, 1, (number, 1))
        return np.hstack([corners, corners + sides, labels, scores])

    def iou(a, b):
        low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:4], b[2:4])
        shared = np.prod(np.clip(high - low, 0, None))
        areas = [np.prod(box[2:4] - box[:2]) for box in (a, b)]
        return shared / (sum(areas) - shared)

    first, second = draw(25), draw(30)
    lone, others = unmatched(
        detections(*map(tuple, first)), detections(*map(tuple, second)), 0.4
    )
    assert len(first) - len(lone) == len(second) - len(others) > 5
    # No two that are left could have been a pair.
    for i, j in itertools.product(lone, others):
        same = first[i, 4] == second[j, 4]
        assert not same or iou(first[i], second[j]) < 0.4
