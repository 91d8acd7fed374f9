# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Buffers that layers make anew for each size of their input."""

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional

import torch
from torch import Tensor, nn

# Of ``nn.Module`` itself, beside plain attributes.
_OF_MODULES = set(vars(nn.Module()))


def layers_with_buffers(module: nn.Module) -> List[nn.Module]:
    """Layers with buffers of their own, but for those of PyTorch.

    Args:
        module (nn.Module): A backbone: heads count in theirs. Most have
            none, since norms are PyTorch's.
    """
    return [
        layer
        for layer in module.modules()
        if layer._buffers and not type(layer).__module__.startswith('torch.')
    ]


@contextmanager
def same_buffers(layers: List[nn.Module]) -> Iterator[None]:
    """Put back buffers that a ``with`` block makes anew for another size.

    Rotary positions, say, are made for the size of the input that came last,
    and are saved with the weights: a checkpoint would have those of the last
    subnet. With them go the plain attributes of the layer, which say what
    size that was. What is changed in place, or keeps its size, is left alone.

    Args:
        layers (list[nn.Module]): As of :func:`layers_with_buffers`.
    """
    before = [(x, dict(x._buffers), dict(vars(x))) for x in layers]
    try:
        yield
    finally:
        for layer, buffers, attributes in before:
            if _is_of_another_size(layer, buffers, attributes):
                layer._buffers.clear()
                layer._buffers.update(buffers)
                for name, value in attributes.items():
                    if name not in _OF_MODULES:
                        vars(layer)[name] = value


def _is_of_another_size(
    layer: nn.Module, buffers: Dict[str, Any], attributes: Dict[str, Any]
) -> bool:
    now = layer._buffers
    if now.keys() == buffers.keys() and all(
        now[name] is buffer for name, buffer in buffers.items()
    ):
        return False
    return [*map(_shape, now.values())] != [
        *map(_shape, buffers.values())
    ] or any(
        # As many positions, of another height and width.
        value != attributes.get(name)
        for name, value in vars(layer).items()
        if name not in _OF_MODULES and isinstance(value, (tuple, list))
    )


def _shape(buffer: Optional[Tensor]) -> Optional[torch.Size]:
    return None if buffer is None else buffer.shape
