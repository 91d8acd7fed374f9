# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Images at another size."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..subnet import Size


def resize_images(images: Tensor, size: Size) -> Tensor:
    """Interpolate ``(N, C, height, width)`` to ``size``.

    Bilinear, with anti-aliasing. Half precision, for which not every device
    has an implementation, is computed in single.
    """
    single = torch.promote_types(images.dtype, torch.float)
    resized = F.interpolate(
        images.to(single), size, mode='bilinear', antialias=True
    )
    return resized.to(images.dtype)


def scaled(size: Size, resolution: int, full: int) -> Size:
    """Sides times ``resolution / full``, rounded half up; none vanishes.

    In whole numbers, so that no machine rounds differently.
    """
    height, width = (
        max(1, (2 * side * resolution + full) // (2 * full)) for side in size
    )
    return height, width
