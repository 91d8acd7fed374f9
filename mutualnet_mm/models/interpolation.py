# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Images at another size."""

from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_images(images: Tensor, size: Tuple[int, int]) -> Tensor:
    """Interpolate ``(N, C, height, width)`` to ``size``.

    Bilinear, with anti-aliasing. Half precision, for which not every device
    has an implementation, is computed in single.
    """
    single = torch.promote_types(images.dtype, torch.float)
    resized = F.interpolate(
        images.to(single), size, mode='bilinear', antialias=True
    )
    return resized.to(images.dtype)
