# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""State of heads and losses that a training pass updates.

Some heads count what they see: Dynamic R-CNN adapts its thresholds to past
IoUs, the Seesaw and EQL v2 losses their weights to past labels. A step of
mutual learning passes them once per subnet; it must not count as several.
"""

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from ..slimmable import SlimLayer

# Of ``nn.Module`` itself: parameters, which are trained, hooks, children.
_OF_MODULES = set(vars(nn.Module())) - {'training', '_buffers'}


@contextmanager
def unchanged_state(module: nn.Module) -> Iterator[None]:
    """Undo what a ``with`` block does to buffers and plain attributes.

    Plain attributes are numbers, text, arrays, tensors that need no gradient,
    and built-in lists, dictionaries, sets and queues of these, of the modules
    and of the helper objects that they hold, such as assigners. Afterwards
    each is the same object as before, with the same content. Parameters,
    gradients, hooks and the inside of other objects are left alone.

    Args:
        module (nn.Module): The head or neck that is passed inside.
    """
    owners = [
        vars(owner)
        for layer in module.modules()
        for owner in (layer, *_helpers(layer))
    ]
    before = [
        {k: v for k, v in owner.items() if k not in _OF_MODULES}
        for owner in owners
    ]
    seen: Dict[int, Any] = {}
    refills = [
        refill
        for attributes in before
        for value in attributes.values()
        for refill in _refills(value, seen)
    ]
    try:
        yield
    finally:
        for owner, attributes in zip(owners, before):
            for name in set(owner) - set(attributes) - _OF_MODULES:
                del owner[name]
            owner.update(attributes)
        with torch.no_grad():
            for refill in refills:
                refill()


@contextmanager
def unchanged_heads(model: nn.Module) -> Iterator[None]:
    """Undo what a ``with`` block does to what is counted in a model.

    What counts must count one step.

    Args:
        model (nn.Module): Its children behind the backbone are kept as by
            :func:`unchanged_state`. Of the backbone, whose maps are large and
            whose batch norms keep their statistics themselves, only numbers
            are: DropBlock counts the steps of its warm-up.
    """
    backbone = getattr(model, 'backbone', None)
    numbers = [
        (vars(layer), {k: v for k, v in vars(layer).items() if _counts(v)})
        for layer in (backbone.modules() if backbone is not None else ())
        # Most of them, and none of those counts: this is done in each pass.
        if not isinstance(layer, SlimLayer)
        and not type(layer).__module__.startswith('torch.')
    ]
    with ExitStack() as stack:
        for part in behind_backbone(model):
            stack.enter_context(unchanged_state(part))
        try:
            yield
        finally:
            for attributes, before in numbers:
                attributes.update(before)


def _counts(value: Any) -> bool:
    return type(value) in (int, float)


def behind_backbone(model: nn.Module) -> Iterator[nn.Module]:
    """Children of a model that take its maps: necks, heads and losses."""
    for name, part in model.named_children():
        if name not in ('backbone', 'data_preprocessor'):
            yield part


def _refills(
    value: Any, seen: Dict[int, Any]
) -> Iterator[Callable[[], object]]:
    """Functions that bring back the content of a value, and of its items."""
    if id(value) in seen:
        return
    seen[id(value)] = value  # kept, so that no other gets its number
    items: Any = ()
    if isinstance(value, Tensor):
        if not value.requires_grad:
            yield partial(value.copy_, value.clone())
    elif isinstance(value, np.ndarray):
        yield partial(np.copyto, value, value.copy())
    elif type(value).__module__ in ('builtins', 'collections'):
        if isinstance(value, dict):
            content = dict(value)
            items = content.values()
            yield partial(_refill, value, value.update, content)
        elif isinstance(value, set):
            yield partial(_refill, value, value.update, set(value))
        elif hasattr(value, 'extend'):  # lists and queues
            items = [*value]
            yield partial(_refill, value, value.extend, items)
        elif isinstance(value, tuple):
            items = value
    for item in items:
        yield from _refills(item, seen)


def _refill(container: Any, fill: Callable[[Any], object], items: Any) -> None:
    container.clear()
    fill(items)


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
