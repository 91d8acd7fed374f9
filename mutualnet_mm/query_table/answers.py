# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What each subnet answered, image by image, and the cascades in it."""

from dataclasses import dataclass, fields, replace
from typing import List, Mapping, Optional, Sequence, cast

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .cascades import Cascade, find_cascades
from .entry import TableEntry
from .resampling import drawn_counts

# What one right answer of all adds to the metrics that count them.
TOP1 = {'accuracy/top1': 100.0, 'acc/top1': 1.0}
_TYPES = dict(truth=torch.int32, right=torch.bool, confidence=torch.float32)


@dataclass(frozen=True)
class Answers:
    """Answers of one subnet to all test images, in the order of the data set.

    Args:
        truth (Tensor): Label of each image, int32, (N, ).
        right (Tensor): Whether the most probable class is the label, bool.
        confidence (Tensor): Probability of that class, float32.

    Raises:
        UsageError: If they are of other types, or not of one length.
    """

    truth: Tensor
    right: Tensor
    confidence: Tensor

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if (
                not isinstance(value, Tensor)
                or value.dtype != _TYPES[field.name]
                or value.shape != (len(self.truth),)
            ):
                raise UsageError(f'{field.name} is no list of answers')


def top1_metric(names: Sequence[str]) -> Optional[str]:
    """Which of the metrics is the share of right answers, if any is."""
    return next((name for name in TOP1 if name in names), None)


def cascades_of(
    entries: Sequence[TableEntry], answers: Mapping[str, Answers]
) -> List[Cascade]:
    """Find the cascades of a table, see :func:`~.cascades.find_cascades`.

    Args:
        entries (Sequence[TableEntry]): Of all subnets.
        answers (Mapping): By ``str(subnet)``; subnets without any are in no
            cascade.

    Returns:
        list[Cascade]: The cheapest on average first; none where there is a
        single subnet, or no cascade better than it.

    Raises:
        UsageError: If the answers are not those that the metrics count.
    """
    metric = top1_metric([name for entry in entries for name in entry.metrics])
    if metric is None:
        raise UsageError('the test_evaluator gives no top-1 accuracy')
    chosen = [
        entry
        for entry in entries
        if str(entry.subnet) in answers
        and entry.metrics.get(metric) is not None
    ]
    if not chosen:
        raise UsageError('no answers were kept')
    given = [answers[str(entry.subnet)] for entry in chosen]
    for entry, found in zip(chosen, given):
        if not torch.equal(found.truth, given[0].truth):
            raise UsageError(
                f'the images of {entry.subnet} came in another order than '
                f'those of {chosen[0].subnet}: do not shuffle them'
            )
        _check_counted(entry, metric, found.right)
    right = np.stack([found.right.numpy() for found in given])
    confidence = np.stack([found.confidence.numpy() for found in given])
    macs = [entry.macs for entry in chosen]
    cascades = []
    for rule, share, accuracy in find_cascades(macs, right, confidence):
        first, second = chosen[rule.first], chosen[rule.second]
        cascades.append(
            Cascade(
                stages=(first.subnet, second.subnet),
                threshold=rule.threshold,
                mean_macs=float(first.macs + share * second.macs),
                macs=first.macs + second.macs,
                metric=metric,
                accuracy=float(accuracy * TOP1[metric]),
            )
        )
    return cascades


def with_resampled_top1(
    entries: Sequence[TableEntry], answers: Mapping[str, Answers]
) -> List[TableEntry]:
    """Return the entries with the top-1 accuracy on drawn test sets.

    Args:
        entries (Sequence[TableEntry]): Of all subnets.
        answers (Mapping): By ``str(subnet)``. Those that are not what the
            metric counts, or not in the order of the first ones, do not
            count.
    """
    metric = top1_metric([name for entry in entries for name in entry.metrics])
    if metric is None or not answers:
        return list(entries)
    first = next(iter(answers.values()))
    counts = drawn_counts(len(first.truth)).astype(np.float32)
    found = []
    for entry in entries:
        own = answers.get(str(entry.subnet))
        try:
            if own is None or entry.metrics.get(metric) is None:
                raise UsageError('it has none')
            if not torch.equal(own.truth, first.truth):
                raise UsageError('they came in another order')
            _check_counted(entry, metric, own.right)
        except UsageError:
            found.append(entry)
            continue
        shares = counts @ own.right.numpy().astype(np.float32)
        values = shares / len(own.truth) * TOP1[metric]
        resampled = {**entry.resampled, metric: tuple(values.tolist())}
        found.append(replace(entry, resampled=resampled))
    return found


def _check_counted(entry: TableEntry, metric: str, right: Tensor) -> None:
    """Refuse answers that the metric counts in another way."""
    told = cast(float, entry.metrics[metric])
    number, counted = len(right), int(right.sum())
    # Of two classes of one rounded probability, either may be the answer.
    if abs(told / TOP1[metric] * number - counted) > max(0.5, number / 1000):
        raise UsageError(
            f'{metric} of {entry.subnet} is {told:.6g}, but its most probable '
            f'class is right for {counted} of {number} images'
        )
