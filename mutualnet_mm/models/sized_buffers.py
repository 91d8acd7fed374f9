# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Buffers that layers make anew for each size of their input."""

from contextlib import contextmanager
from typing import Iterator, List

from torch import nn

# Of ``nn.Module`` itself, beside plain attributes.
_OF_MODULES = set(vars(nn.Module()))


def layers_with_buffers(module: nn.Module) -> List[nn.Module]:
    """Layers with buffers of their own, but for those of PyTorch.

    Args:
        module (nn.Module): Most networks have none: norms are PyTorch's.
    """
    return [
        layer
        for layer in module.modules()
        if any(value is not None for value in layer._buffers.values())
        and not isinstance(layer, nn.modules.batchnorm._NormBase)
        and not type(layer).__module__.startswith('torch.')
    ]


@contextmanager
def same_buffers(layers: List[nn.Module]) -> Iterator[None]:
    """Put back the buffers that a ``with`` block replaces.

    Rotary positions, say, are made for the size of the input that came last,
    and are saved with the weights: a checkpoint would have those of the last
    subnet. With them go the plain attributes of the layer, which say what
    size that was. What is changed in place is left alone.

    Args:
        layers (list[nn.Module]): As of :func:`layers_with_buffers`.
    """
    before = [(x, dict(x._buffers), dict(vars(x))) for x in layers]
    try:
        yield
    finally:
        for layer, buffers, attributes in before:
            now = layer._buffers
            if any(now.get(name) is not b for name, b in buffers.items()):
                now.clear()
                now.update(buffers)
                for name, value in attributes.items():
                    if name not in _OF_MODULES:
                        vars(layer)[name] = value
