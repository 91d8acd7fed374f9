# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The losses of a mutual learning step, and what the log shows of them."""

from typing import Any, Sequence, Union

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_RATIO = 5.0
_EPSILON = 1e-5  # as of batch norms


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(logits)), mean over the batch.

    At least in single precision: half would round the small differences away.
    """
    single = torch.promote_types(logits.dtype, torch.float)
    logits, teacher = logits.to(single), teacher.to(single)
    return F.kl_div(
        F.log_softmax(logits, dim=1),
        F.softmax(teacher, dim=1),
        reduction='batchmean',
    )


def alpha_divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """Adaptive alpha-divergence, mean over the batch.

    Of each sample, the larger one of two divergences of the student's
    distribution q from the teacher's p. That of alpha = 1 is KL(p || q), which
    punishes a student that misses what the teacher holds for likely. That of
    alpha = -1, (E_q[q / p] - 1) / 2, punishes one that holds for likely what
    the teacher does not. There the importance ratio q / p is at most 5, in
    the value and in the gradient, E_q[(q / p) grad log q]: without a bound
    single classes would rule the step.

    Args:
        logits (Tensor): Of the student, ``(N, classes, ...)``.
        teacher (Tensor): Logits of the teacher, of the same shape.
    """
    single = torch.promote_types(logits.dtype, torch.float)
    log_q = F.log_softmax(logits.to(single), dim=1)
    log_p = F.log_softmax(teacher.to(single), dim=1)
    kl = (log_p.exp() * (log_p - log_q)).sum(1)
    with torch.no_grad():
        ratio = (log_q - log_p).exp().clamp(max=_MAX_RATIO)
        weighted = log_q.exp() * ratio
        value = (weighted.sum(1) - 1) / 2
    slope = (weighted * log_q).sum(1)  # only its gradient counts
    other = value + slope - slope.detach()
    return torch.where(value > kl, other, kl).sum() / len(logits)


DIVERGENCES = dict(kl=divergence, alpha=alpha_divergence)
"""What ``mutual.divergence`` names."""


def correlation_distance(maps: Tensor, teacher: Tensor) -> Tensor:
    """1 - r, Pearson's correlation with the teacher, mean over channels.

    PKD: half of the squared distance of maps whose channels have a mean of 0
    and a variance of 1, over all places of all images. Scales and offsets of
    channels do not count.

    Args:
        maps (Tensor): Of the student, ``(N, C, height, width)``.
        teacher (Tensor): Maps of the teacher, of the same shape.
    """
    single = torch.promote_types(maps.dtype, torch.float)
    pair = (_standardised(m.to(single)) for m in (maps, teacher))
    return F.mse_loss(*pair) / 2


def _standardised(maps: Tensor) -> Tensor:
    variance, mean = torch.var_mean(
        maps, (0, 2, 3), correction=0, keepdim=True
    )
    # Not by the deviation: its gradient is infinite where it is zero.
    return (maps - mean) * (variance + _EPSILON).rsqrt()


def log_key(key: str) -> str:
    """MMEngine logs the sum as ``loss``; a part of that name would hide it."""
    return 'full/loss' if key == 'loss' else key


def detached(value: Union[Tensor, Sequence[Tensor]]) -> Any:
    """The same loss, or list of losses, without its graph."""
    if isinstance(value, Tensor):
        return value.detach()
    return [v.detach() for v in value]
