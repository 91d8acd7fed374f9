# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Devices that networks run on."""

import ctypes
import sys
from textwrap import shorten
from typing import Callable, Optional, Union

import torch

from .errors import UsageError, first_line

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def prepare_cpu() -> None:
    """Make PyTorch fast on a CPU, for the process of a tool.

    Numbers too small to be normal, which the tails of small networks and the
    gradients of fresh ones have, count as zero. And memory that was freed is
    kept: handed back and asked for anew, its pages take up to a third of a
    training step. Both are for the process that a user has started, which is
    why importing the package does not do it.
    """
    torch.set_flush_denormal(True)
    tune = _of_glibc('mallopt')
    if tune is not None:
        tune(_MMAP_MAX, 0)
        tune(_TRIM_THRESHOLD, 2**31 - 1)


def release_freed() -> None:
    """Hand memory that was freed back to the system, where glibc can."""
    trim = _of_glibc('malloc_trim')
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Optional[Callable]:
    """Find a function that only glibc has."""
    if sys.platform != 'linux':
        return None
    return getattr(ctypes.CDLL(None), name, None)  # None in musl


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
