# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""State of heads and losses that a training pass updates.

Some heads count what they see: Dynamic R-CNN adapts its thresholds to past
IoUs, the Seesaw loss its weights to past labels. A step of mutual learning
passes them once per subnet; it must not count as several steps.
"""

import copy
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Tuple

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, type(None))
# Of ``nn.Module`` itself: parameters, buffers, hooks, children.
_OF_MODULES = set(vars(nn.Module())) - {'training'}


@contextmanager
def unchanged_state(module: nn.Module) -> Iterator[None]:
    """Undo what a ``with`` block does to buffers and plain attributes.

    Plain attributes are numbers, text, and lists, dictionaries, sets and
    queues (compared by their items, not by what these hold), of the modules
    and of the helper objects that they hold, such as assigners. Parameters,
    gradients and hooks are left alone.

    Args:
        module (nn.Module): The head or neck that is passed inside.
    """
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    attributes = [
        (owner, _plain(owner))
        for layer in module.modules()
        for owner in (layer, *_helpers(layer))
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for owner, before in attributes:
            for name in set(_plain(owner)) - set(before):
                del owner.__dict__[name]
            owner.__dict__.update(before)


def _plain(owner: Any) -> Dict[str, Any]:
    """Copies of the attributes that hold plain values."""
    return {
        name: value if isinstance(value, _PLAIN) else copy.copy(value)
        for name, value in vars(owner).items()
        if name not in _OF_MODULES and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, _PLAIN):
        return True
    # Containers alone: a copied tensor or generator would not be the same.
    return type(value).__module__ in ('builtins', 'collections') and (
        hasattr(value, '__len__') and not isinstance(value, (bytes, tuple))
    )


def _helpers(layer: nn.Module) -> List[Any]:
    """Objects with state of their own that a module holds."""
    found: List[Any] = []
    for name, value in vars(layer).items():
        values: Tuple[Any, ...] = (value,)
        if isinstance(value, (list, tuple)):
            values = tuple(value)
        found += [
            v
            for v in values
            if name not in _OF_MODULES
            and hasattr(v, '__dict__')
            and not callable(v)
            and not isinstance(v, (nn.Module, Tensor, type))
        ]
    return found
