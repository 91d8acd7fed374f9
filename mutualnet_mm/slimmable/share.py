# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Module trees that share one set of weights."""

import copy
from itertools import chain

from torch import nn

from .statistics import slim_batch_norms


def share_weights(module: nn.Module) -> nn.Module:
    """Copy a module tree, but not its tensors.

    The copy has an active subnet of its own over the same parameters, buffers
    and statistics, so that both can run different subnets at the same time.
    """
    tensors = [*chain(module.parameters(), module.buffers())]
    for _, layer in slim_batch_norms(module):
        tensors.extend(layer.subnet_stats or ())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
