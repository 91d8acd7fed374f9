# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Inputs of a network as pictures, and maps laid over them."""

from typing import Any, Optional, Tuple

import cv2
import numpy as np
from torch import Tensor

from ..errors import UsageError

Size = Tuple[int, int]


def input_pixels(
    model: Any, inputs: Tensor, channel_order: Optional[str]
) -> np.ndarray:
    """Return images as they were before the normalisation.

    Args:
        model (nn.Module): Its ``data_preprocessor`` has normalised them.
        inputs (Tensor): (..., 3, H, W), the channels as the model takes them.
        channel_order (str, optional): Of what the preprocessor took, see
            :attr:`~.InputPipeline.channel_order`. None counts as RGB.

    Returns:
        np.ndarray: (..., H, W, 3), RGB of uint8.

    Raises:
        UsageError: If there are not three channels.
    """
    preprocessor = model.data_preprocessor
    pixels = np.moveaxis(inputs.detach().cpu().double().numpy(), -3, -1)
    if pixels.shape[-1] != 3:
        raise UsageError(
            f'inputs of {pixels.shape[-1]} channels are no colours: '
            'RGB images and clips are drawn'
        )
    if getattr(preprocessor, 'mean', None) is not None:
        mean, std = (
            getattr(preprocessor, name).flatten().cpu().double().numpy()
            for name in ('mean', 'std')
        )
        pixels = pixels * std + mean
    flips = getattr(preprocessor, 'to_rgb', False) or getattr(
        preprocessor, '_channel_conversion', False
    )
    if (channel_order == 'BGR') != bool(flips):
        pixels = pixels[..., ::-1]
    return pixels.round().clip(0, 255).astype(np.uint8)


def enlarge_map(values: np.ndarray, size: Size) -> np.ndarray:
    """Interpolate a map to the size of the image it is of, bilinearly.

    Args:
        values (np.ndarray): (h, w).
        size (tuple[int]): Height and width.
    """
    return cv2.resize(
        values.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR
    )


def evidence(values: np.ndarray) -> np.ndarray:
    """Positive part of a map over its maximum, in [0, 1].

    What speaks against the class is zero, and so is a map without any
    positive value.
    """
    positive = np.clip(values, 0, None)
    return positive / max(positive.max(), np.finfo(np.float32).tiny)
