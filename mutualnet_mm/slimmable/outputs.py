# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The tensors in what a network returns."""

from dataclasses import fields, is_dataclass
from typing import Any, Iterator

from torch import Tensor


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in what a network returns, in order.

    Args:
        value (Any): Those in tuples, lists, dictionaries and data classes,
            however nested, are found.
    """
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, dict):
        value = list(value.values())
    elif is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
