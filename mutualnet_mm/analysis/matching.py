# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What one set of detections finds and another misses."""

from typing import List, Tuple

from torch import Tensor
from torchvision.ops import box_iou


def unmatched(
    first: Tuple[Tensor, Tensor, Tensor],
    second: Tuple[Tensor, Tensor, Tensor],
    iou: float = 0.5,
) -> Tuple[List[int], List[int]]:
    """Match detections of two networks on one image.

    Those of the first are gone through by falling score. Each takes, of the
    second's that have its class and are free, the one of the largest overlap,
    if that is large enough.

    Args:
        first (tuple[Tensor]): Boxes (N, 4) as x1, y1, x2, y2, labels (N,) and
            scores (N,).
        second (tuple[Tensor]): The same of another network.
        iou (float): Least intersection over union of a pair. Defaults to 0.5.

    Returns:
        tuple[list[int]]: What only the first found, and what only the second,
        as indices in rising order.
    """
    boxes, labels, scores = first
    others, other_labels, _ = second
    overlaps = box_iou(boxes, others)
    overlaps[labels[:, None] != other_labels[None]] = -1.0
    only_first, free = [], set(range(len(others)))
    for i in scores.argsort(descending=True, stable=True).tolist():
        near = [j for j in free if overlaps[i, j] >= iou]
        if near:
            free.remove(max(near, key=lambda j: float(overlaps[i, j])))
        else:
            only_first.append(i)
    return sorted(only_first), sorted(free)
