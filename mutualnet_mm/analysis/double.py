# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Stock models in double precision."""

import copy
import re
from contextlib import contextmanager
from typing import Any, Iterator

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from ..errors import ConfigError, first_line


@contextmanager
def in_double() -> Iterator[None]:
    """Let heads make priors and targets in double precision, too.

    Raises:
        ConfigError: Where stock code is written for single precision.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    except RuntimeError as error:
        # Of operators: "expected scalar type Float", "dtypes match".
        words = set(re.findall(r'[a-z]+', str(error).lower()))
        if not words & {'double', 'float'}:
            raise
        raise ConfigError(
            f'the model does not run in double precision '
            f'({first_line(error)}): use single precision (--float32)'
        ) from error
    finally:
        torch.set_default_dtype(before)


def as_double(value: Any) -> Any:
    """Return a copy of a batch in double precision.

    Args:
        value: Tensors, data samples, and lists and dictionaries of these.
            Other values are shared.
    """
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return type(value)(as_double(item) for item in value)
    if isinstance(value, dict):
        return {key: as_double(item) for key, item in value.items()}
    if isinstance(value, BaseDataElement) or hasattr(value, 'tensor'):
        new = copy.copy(value)
        for name, field in vars(value).items():
            # Names of the fields lie in sets, and are no data.
            new.__dict__[name] = as_double(field)
        return new
    return value
