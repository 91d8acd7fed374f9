# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""``torch.compile`` for static networks."""

from typing import Any

from torch import nn


def compile_parts(net: nn.Module, networks: int) -> None:
    """Compile backbone and neck in place, at their first call.

    Args:
        net (nn.Module): A static network.
        networks (int): How many of its kind are kept at the same time.
    """
    # Only here: importing it takes seconds.
    import torch._dynamo

    config: Any = torch._dynamo.config
    # It counts by code, which all networks of a class share; beyond its limit
    # it would go on without compiling. The default is that of a single one.
    new = hasattr(config, 'recompile_limit')
    name = 'recompile_limit' if new else 'cache_size_limit'
    setattr(config, name, max(getattr(config, name), 8 * networks))
    for part in ('backbone', 'neck'):
        module = getattr(net, part, None)
        if module is not None:
            module.compile()
