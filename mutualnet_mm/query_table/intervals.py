# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""How far a metric on a sample of images may be off."""

import math
from statistics import NormalDist
from typing import Optional, Tuple

# Metrics that are the share of right answers, by the start of their names:
# mmpretrain gives percent, mmaction2 fractions.
_SHARES = {'accuracy/top': 100.0, 'acc/top': 1.0}
# 95 % of a normal distribution lie within this many standard deviations.
_Z = NormalDist().inv_cdf(0.975)


def wilson_interval(share: float, count: int) -> Tuple[float, float]:
    """Wilson's score interval of a share, at 95 %.

    Args:
        share (float): Share of right answers, from 0 to 1.
        count (int): Number of independent answers.

    Returns:
        tuple[float]: Lower and upper bound, within [0, 1].
    """
    scale = 1 + _Z**2 / count
    center = (share + _Z**2 / (2 * count)) / scale
    spread = share * (1 - share) / count + _Z**2 / (4 * count**2)
    half = _Z / scale * math.sqrt(max(spread, 0.0))
    return max(center - half, 0.0), min(center + half, 1.0)


def metric_interval(
    name: str, value: Optional[float], num_images: Optional[int]
) -> Optional[Tuple[float, float]]:
    """95 % interval of a metric measured on ``num_images`` images.

    Images count as independent draws, so it says how the metric would vary
    between test sets. Two subnets tested on the same images differ by less
    than their intervals suggest.

    Args:
        name (str): Such as ``'accuracy/top1'``.
        value (float, optional): Value of the metric, in its own unit.
        num_images (int, optional): Images that it was measured on.

    Returns:
        tuple[float] or None: Bounds in the metric's unit. None if it is not a
        share of right answers, such as COCO's average precision.
    """
    scale = next((s for key, s in _SHARES.items() if name.startswith(key)), 0)
    if value is None or not num_images or not scale:
        return None
    low, high = wilson_interval(value / scale, num_images)
    return low * scale, high * scale
