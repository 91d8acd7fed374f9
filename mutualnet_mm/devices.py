# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Devices that networks run on."""

from textwrap import shorten
from typing import Union

import torch

from .errors import UsageError, first_line


def check_device(device: Union[str, torch.device]) -> torch.device:
    """Return a device, if tensors can be put on it and read from it.

    Args:
        device (str or torch.device): Such as ``'cpu'`` or ``'cuda:1'``.

    Raises:
        UsageError: If this machine, or PyTorch as it is installed, has none
            of this name.
    """
    try:
        torch.zeros(1, device=device).item()
        return torch.device(device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = shorten(first_line(error), 100, placeholder=' ...')
        number = torch.cuda.device_count()
        others = f", or 'cuda:0' to 'cuda:{number - 1}'" if number else ''
        raise UsageError(
            f'device={str(device)!r} cannot be used: {reason}: give '
            f"'cpu'{others}"
        ) from error
