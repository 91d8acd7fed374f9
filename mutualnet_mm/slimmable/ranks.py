# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the processes of a distributed run tell each other."""

from typing import Any, List, Optional

import torch.distributed as dist

from ..errors import UsageError


def world_size() -> int:
    """Number of processes; 1 where nothing is distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


def is_lost_connection(error: BaseException) -> bool:
    """Whether a collective failed since another rank has stopped.

    Args:
        error (BaseException): What was raised. Gloo's errors are plain
            RuntimeErrors that name its source files.
    """
    kinds = [
        getattr(dist, name, None)
        for name in ('DistBackendError', 'DistNetworkError')
    ]
    return world_size() > 1 and (
        isinstance(error, tuple(kind for kind in kinds if kind is not None))
        or (isinstance(error, RuntimeError) and 'gloo' in str(error))
    )


def gather(value: Any) -> List[Any]:
    """Return the value of every rank, in their order. A collective."""
    if world_size() == 1:
        return [value]
    values: List[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def agree(value: Any = None, error: Optional[Exception] = None) -> List[Any]:
    """Gather a value of every rank, unless one of them has an error.

    A collective. A rank that raises alone leaves the others waiting for it
    in their next collective until they time out. So each first says here
    whether it has an error, and then all raise the same one.

    Args:
        value: What this rank contributes. Defaults to None.
        error (Exception, optional): What went wrong on this rank.

    Returns:
        list: Values of all ranks, in their order.

    Raises:
        Exception: ``error`` itself, or on the other ranks one of the same
            text: a UsageError if it was one.
    """
    if world_size() == 1:
        if error is not None:
            raise error
        return [value]
    text = None if error is None else str(error) or type(error).__name__
    found = gather((text, isinstance(error, UsageError), value))
    for first, is_usage, _ in found:
        if first is not None:
            if error is not None and text == first:
                raise error
            raise (UsageError if is_usage else RuntimeError)(first) from error
    return [own for _, _, own in found]
