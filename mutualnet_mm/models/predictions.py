# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The class scores that a stock ``loss()`` makes inside."""

from contextlib import contextmanager
from typing import Any, Iterator, List, Sequence, Tuple

from torch import Tensor, nn

from ..errors import ConfigError


@contextmanager
def outputs_of(head: nn.Module) -> Iterator[List[Any]]:
    """Collect what a head returns in a ``with`` block.

    Args:
        head (nn.Module): The module whose output is the prediction.
    """
    seen: List[Any] = []
    handle = head.register_forward_hook(
        lambda module, args, out: seen.append(out)
    )
    try:
        yield seen
    finally:
        handle.remove()


def class_scores(seen: Sequence[Any], head: nn.Module) -> Tuple[Tensor, ...]:
    """Class scores of the last output: several of a head with branches.

    Args:
        seen (Sequence): As :func:`outputs_of` collects them.
        head (nn.Module): Whose outputs they are, for the error.

    Raises:
        ConfigError: If they are no scores, or one score alone.
    """
    last = seen[-1] if seen else None
    scores = last if isinstance(last, (list, tuple)) else (last,)
    # Of one shape, or some of them may be something else.
    shapes = {getattr(score, 'shape', None) for score in scores}
    if None in shapes or len(shapes) != 1:
        raise ConfigError(
            f'the loss of {type(head).__name__} shows no '
            "class scores to match by KL: use mutual.supervision='label'"
        )
    if any(score.dim() < 2 or score.shape[1] < 2 for score in scores):
        raise ConfigError(
            f'{type(head).__name__} gives one score for each sample, which '
            'is no distribution, and subnets would learn nothing from it by '
            "KL: use mutual.supervision='label'"
        )
    return tuple(scores)


def loss_weight(head: nn.Module) -> float:
    """Weight of a head's stock loss, which KL takes the place of."""
    losses = (
        getattr(head, name, None) for name in ('loss_module', 'loss_cls')
    )
    weights = (getattr(loss, 'loss_weight', None) for loss in losses)
    return next((weight for weight in weights if weight is not None), 1.0)


def check_alike(scores: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    """Refuse class scores of a teacher that are not for the same classes.

    Args:
        scores (Sequence[Tensor]): Of a subnet, one for each branch.
        teacher (Sequence[Tensor]): To be compared with.

    Raises:
        ConfigError: Names the shapes of both.
    """
    own, other = (
        [tuple(s.shape) for s in found] for found in (scores, teacher)
    )
    if own != other:
        raise ConfigError(
            f'the teacher predicts class scores of shape '
            f'{", ".join(map(str, other))}, the subnets of '
            f'{", ".join(map(str, own))}: mutual.teacher must know the same '
            'classes'
        )
