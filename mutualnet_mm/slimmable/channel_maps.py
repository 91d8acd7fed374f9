# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Tensors that say, place by place, which channel lies there.

Beside each tensor of a pass goes such a map (:mod:`.channel_trace`). Here is
what becomes of one where an operator takes places together or apart.
"""

from typing import Any, List, Sequence, Set

import torch
from torch import Tensor

NOTHING = 0
"""In place of a channel: a constant, or a mixture of all channels."""


def stretched(found: Tensor, shape: torch.Size) -> Tensor:
    """Other places, same channels: ``(N, C, ...)``."""
    places = tuple(range(2, found.dim()))
    kept = found.amax(places, keepdim=True) if places else found
    return kept.expand(shape).contiguous()


def reduced(found: Tensor, shape: Sequence[int], given: Any) -> Tensor:
    """Take some axes together.

    Where each channel stays for itself, its number; where parts are summed
    (radix attention), that of the first part; where all channels are mixed,
    nothing.
    """
    axes = given[0] if given and given[0] is not None else None
    if isinstance(axes, int):
        axes = [axes]
    if not isinstance(axes, (list, tuple)) or not axes:
        axes = list(range(found.dim()))
    axes = [axis % found.dim() for axis in axes]
    kept = found.amax(axes, keepdim=True)
    mixed = any(varies(found, axis) for axis in axes)
    others = [d for d in range(found.dim()) if d not in axes]
    if mixed:
        first = found
        for axis in axes:
            first = first.narrow(axis, 0, 1)
        apart = any(varies(found, d) for d in others)
        kept = first if apart else torch.zeros_like(first)
    if len(shape) != found.dim():
        kept = kept.flatten().view(
            [found.shape[d] for d in others]
        )  # the axes are gone
    return kept.contiguous()


def on_second_axis(found: Tensor, dims: int) -> Tensor:
    """The channels of a norm's weights, as they lie in what is normalised."""
    return found.view(-1, *[1] * (dims - 2)) if found.dim() == 1 else found


def parts_of(whole: Tensor, result: Any) -> List[Set[int]]:
    """The parts that an operator takes a tensor's channels into, if any."""
    if isinstance(result, (list, tuple)):
        parts = [atoms_of(part) for part in result]
        return [] if all(part == parts[0] for part in parts) else parts
    if result.numel() < whole.numel():
        kept, others = atoms_of(result), atoms_of(whole) - atoms_of(result)
        return [kept, others] if others else []
    # In a view of more axes, the last one that tells channels apart is that
    # of the parts' own channels.
    axes = [dim for dim in range(result.dim()) if varies(result, dim)]
    before = [dim for dim in range(whole.dim()) if varies(whole, dim)]
    if len(axes) < 2 or len(axes) <= len(before):
        return []
    first = axes[:-1]
    flat = result.movedim(first, tuple(range(len(first))))
    return [atoms_of(part) for part in flat.flatten(0, len(first) - 1)]


def varies(found: Tensor, dim: int) -> bool:
    """Whether different channels lie along an axis."""
    if not found.numel():  # TSM shifts none of a few channels
        return False
    first = found.amax(dim, keepdim=True)
    return bool(((found != first) & (found != NOTHING)).any())


def atoms_of(found: Tensor) -> Set[int]:
    """All channels of a map."""
    counts = torch.bincount(found.flatten())  # no sort: maps are large
    return set(counts.nonzero().flatten().tolist()) - {NOTHING}
