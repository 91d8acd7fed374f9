# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Clips at a smaller size: frames picked by index, space interpolated."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor

from ..errors import ConfigError
from .interpolation import resize_images


def frame_indices(available: int, frames: int) -> List[int]:
    """Pick ``frames`` of ``available`` ones uniformly.

    The middle one of each of ``frames`` equal parts: 1, 4, 6 for 3 of 8. All
    of them, in order, where as many are wanted as there are.

    Raises:
        ConfigError: If more are wanted.
    """
    if frames > available:
        raise ConfigError(
            f'{frames} frames are wanted of a clip of {available}: sample '
            'longer clips, or list fewer in mutual.frames'
        )
    return [(2 * i + 1) * available // (2 * frames) for i in range(frames)]


def pick_frames(clips: Tensor, frames: Optional[int], dim: int = -3) -> Tensor:
    """Keep ``frames`` frames (None: all) of ``(..., time, height, width)``.

    Args:
        clips (Tensor): Clips of any shape.
        frames (int, optional): How many to keep, evenly spread.
        dim (int): Axis of the time. Defaults to -3.
    """
    available = clips.shape[dim]
    if frames in (None, available):
        return clips
    # An index tensor would be copied to the device at every call.
    picked = [clips.select(dim, i) for i in frame_indices(available, frames)]
    return torch.stack(picked, dim)


def resize_space(clips: Tensor, size: Tuple[int, int]) -> Tensor:
    """Interpolate ``(..., time, height, width)`` to ``size`` in space.

    Bilinear, with anti-aliasing, each frame for itself. At its size already,
    what is given is returned.
    """
    if tuple(clips.shape[-2:]) == tuple(size):
        return clips
    # As if frames were channels: each is resized for itself.
    resized = resize_images(clips.flatten(0, -4), size)
    return resized.view(*clips.shape[:-2], *size)


def scaled_size(clips: Tensor, scale: float) -> Tuple[int, int]:
    """Height and width of ``clips`` times ``scale``, rounded."""
    height, width = clips.shape[-2:]
    return round(height * scale), round(width * scale)
