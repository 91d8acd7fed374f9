# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""How far the outputs of two networks are apart."""

from math import inf, isfinite
from typing import Dict, NamedTuple, Sequence

from mmengine.structures import BaseDataElement
from torch import Tensor


class Difference(NamedTuple):
    """The largest one of all numbers that were compared.

    Args:
        absolute (float): Between two numbers.
        relative (float): The same over the largest absolute value of the
            tensor that they are in.
    """

    absolute: float
    relative: float


_EQUAL, _APART = Difference(0.0, 0.0), Difference(inf, inf)


def largest(differences: Sequence[Difference]) -> Difference:
    """Take the largest absolute and relative one; without any, infinity."""
    if not differences:
        return _APART
    return Difference(*map(max, zip(*differences)))


def compare(found: Tensor, expected: Tensor) -> Difference:
    """Compare two tensors.

    Of labels and masks, which are no floating-point numbers, the share that
    differs counts. Other shapes, and what is not finite, are apart by
    infinity.
    """
    if found.shape != expected.shape:
        return _APART
    if expected.numel() == 0:
        return _EQUAL
    if not expected.is_floating_point():
        share = (found != expected).double().mean().item()
        return Difference(share, share)
    found, expected = found.double(), expected.double()
    absolute = (found - expected).abs().max().item()
    if not isfinite(absolute):
        return _APART
    if absolute == 0:
        return _EQUAL
    scale = expected.abs().max().item()
    return Difference(absolute, absolute / scale if scale else inf)


def compare_all(
    found: Sequence[Tensor], expected: Sequence[Tensor]
) -> Difference:
    """Compare lists of tensors; another number of them is infinity."""
    if len(found) != len(expected):
        return _APART
    return largest([compare(*pair) for pair in zip(found, expected)])


def compare_samples(
    found: Sequence[BaseDataElement], expected: Sequence[BaseDataElement]
) -> Difference:
    """Compare predictions in their order: scores, labels, boxes, masks."""
    pairs = [[_predicted(s) for s in pair] for pair in zip(found, expected)]
    if len(found) != len(expected) or any(
        a.keys() != b.keys() for a, b in pairs
    ):
        return _APART
    return largest([compare(a[name], b[name]) for a, b in pairs for name in b])


def _predicted(sample: BaseDataElement) -> Dict[str, Tensor]:
    """All tensors of a sample but those of the ground truth."""
    tensors = {}
    for name, value in sample.items():
        if isinstance(value, BaseDataElement):
            for inner, tensor in _predicted(value).items():
                tensors[f'{name}.{inner}'] = tensor
        elif isinstance(value, Tensor):
            tensors[name] = value
    return {k: v for k, v in tensors.items() if not k.startswith('gt_')}
