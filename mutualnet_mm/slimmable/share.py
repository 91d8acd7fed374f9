# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Module trees that share one set of weights."""

import copy
from typing import Any, Dict

from torch import nn

from .statistics import slim_batch_norms


def share_weights(module: nn.Module) -> nn.Module:
    """Copy a module tree, but not the memory of its tensors.

    The copy has an active subnet of its own over the same numbers, so that
    both can run different subnets at the same time. To move one of them to
    another device or type, or to freeze it, does not touch the other.
    """
    memo: Dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), p.requires_grad)
        for p in module.parameters()
    }
    tensors = [*module.buffers()]
    for _, layer in slim_batch_norms(module):
        tensors.extend(layer.subnet_stats or ())
    memo.update((id(tensor), tensor) for tensor in tensors)
    return copy.deepcopy(module, memo)
