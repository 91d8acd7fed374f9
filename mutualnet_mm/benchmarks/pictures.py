# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Pictures that are decoded and resized anew whenever they are read."""

from pathlib import Path
from typing import Any, Dict, Iterator, List

import cv2
import numpy as np
import torch
from torch import Tensor

HEIGHT, WIDTH = 375, 500
"""Of the pictures, ImageNet's most common size."""


def jpegs(number: int) -> List[np.ndarray]:
    """Compressed pictures of smooth noise."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(number):
        coarse = draw.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        picture = cv2.resize(coarse, (WIDTH, HEIGHT))
        found.append(cv2.imencode('.jpg', picture)[1])
    return found


def write_jpegs(folder: Path, number: int, classes: int) -> None:
    """Write pictures into a folder for each class, as data sets take them."""
    for i, picture in enumerate(jpegs(number)):
        place = folder / str(i % classes)
        place.mkdir(parents=True, exist_ok=True)
        (place / f'{i}.jpg').write_bytes(picture.tobytes())


def crop(jpeg: np.ndarray, side: int) -> np.ndarray:
    """Decode a picture and take a square of it, resized."""
    picture: Any = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    square = picture[:, (WIDTH - HEIGHT) // 2 :][:, :HEIGHT]
    return cv2.resize(square, (side, side))


def to_tensor(picture: np.ndarray) -> Tensor:
    """Return (H, W, C) as a contiguous tensor (C, H, W)."""
    return torch.from_numpy(picture.transpose(2, 0, 1).copy())


def batches(
    pictures: List[np.ndarray], side: int, size: int
) -> Iterator[Dict[str, Any]]:
    """Yield batches of a classifier as its data loader does."""
    from mmpretrain.structures import DataSample

    for start in range(0, len(pictures), size):
        chosen = pictures[start : start + size]
        yield dict(
            inputs=[to_tensor(crop(one, side)) for one in chosen],
            data_samples=[DataSample().set_gt_label([0]) for _ in chosen],
        )
