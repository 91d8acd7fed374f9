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
