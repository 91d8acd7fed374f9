# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What spreads a model over several devices, and must hold all of it."""

from typing import Any

import torch.distributed.fsdp as fsdp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UsageError

# fully_shard's since PyTorch 2.6; before, it was not public.
_OF_PARTS = tuple(
    kind
    for kind in (
        DistributedDataParallel,
        fsdp.FullyShardedDataParallel,
        getattr(fsdp, 'FSDPModule', None),
    )
    if kind is not None
)


def check_whole(model: nn.Module) -> None:
    """Refuse a model of which a wrapper holds parts, or a copy of one.

    A wrapper around the whole model is fine: DDP, FSDP, ``fully_shard``. One
    around a part gathers and reduces its weights with each of its passes,
    while a step takes the gradients of several passes and reduces their sum.
    The copies that ``DataParallel`` makes have no parameters.

    Args:
        model (nn.Module): Unwrapped.

    Raises:
        UsageError: Names the part and its wrapper.
    """
    if getattr(model, '_is_replica', False):
        raise UsageError(
            'DataParallel trains copies without parameters: use '
            'MMDistributedDataParallel, with a process for each device'
        )
    for name, part in model.named_modules():
        found: Any = [k for k in _OF_PARTS if isinstance(part, k)]
        if found and part is not model:
            raise UsageError(
                f'{name} is wrapped by itself ({found[0].__name__}), but a '
                'step runs the whole model several times and reduces the sum '
                'of its gradients once: wrap the model alone, best in '
                'MMDistributedDataParallel'
            )
