# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Bootstrap over images: how scores vary between test sets, and together."""

import base64
import binascii
import struct
from typing import Sequence, Tuple

import numpy as np

from ..errors import UsageError

NUMBER = 500
"""Test sets that are drawn."""

Values = Tuple[float, ...]
"""A score on each of the test sets that are drawn."""


def drawn_counts(num_images: int, seed: int = 0) -> np.ndarray:
    """Draw test sets of as many images, with replacement.

    The same for all subnets, so that their scores can be compared one by one.

    Args:
        num_images (int): Of the test set, N.
        seed (int): Of the drawing. Defaults to 0.

    Returns:
        ndarray: How often each image is in each of them, int32,
        (``NUMBER``, N).
    """
    rng = np.random.default_rng((seed, num_images))
    counts = np.empty((NUMBER, num_images), np.int32)
    for row in counts:
        drawn = rng.integers(0, num_images, num_images)
        row[:] = np.bincount(drawn, minlength=num_images)
    return counts


def drawn_interval(values: Sequence[float]) -> Tuple[float, float]:
    """95 % interval: the percentiles of a score on the drawn test sets."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def is_shown_better(values: Sequence[float], others: Sequence[float]) -> bool:
    """Whether a score is significantly higher than another one.

    It is if it is higher on 97.5 % of the drawn test sets: the 95 % interval
    of the paired difference lies above 0.

    Args:
        values (Sequence[float]): A score on each of the drawn test sets.
        others (Sequence[float]): The other one on the same ones.
    """
    difference = np.subtract(values, others)
    return bool(np.percentile(difference, 2.5) > 0)


def values_to_text(values: Sequence[float]) -> str:
    """Values as text for JSON: base64 of little-endian single precision."""
    packed = struct.pack(f'<{len(values)}f', *values)
    return base64.b64encode(packed).decode('ascii')


def values_from_text(text: str) -> Values:
    """Inverse of :func:`values_to_text`.

    Raises:
        UsageError: If it is damaged.
    """
    try:
        packed = base64.b64decode(text, validate=True)
        values = struct.unpack(f'<{NUMBER}f', packed)
    except (binascii.Error, struct.error, ValueError) as error:
        raise UsageError(f'resampled values are damaged: {error}') from error
    if not np.isfinite(values).all():
        raise UsageError('resampled values are damaged: not all are finite')
    return values
