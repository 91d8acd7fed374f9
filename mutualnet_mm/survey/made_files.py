# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Files of generated data, each written once."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any, Dict, List, Tuple

import cv2
import numpy as np

from ..files import atomic_write, make_folder

NUMBER = 4  # images, clips or skeletons
SIDES = (96, 128)  # height and width of an image in pixels
Leaf = Dict[str, Any]
"""Settings of a data set that is no wrapper."""


def draw_picture(
    number: int, sides: Tuple[int, int]
) -> Tuple[np.ndarray, List[Tuple[int, int, int, int]]]:
    """Noise with two brighter rectangles, and their x, y, width, height."""
    rng = np.random.default_rng(number)
    h, w = sides
    picture = rng.integers(0, 120, (h, w, 3), np.uint8)
    boxes = []
    for _ in range(2):
        x, y = int(rng.integers(1, w // 3)), int(rng.integers(1, h // 3))
        dx, dy = int(rng.integers(w // 4, w // 2)), int(h // 3)
        picture[y : y + dy, x : x + dx] += rng.integers(60, 130, 3, np.uint8)
        boxes.append((x, y, dx, dy))
    return picture, boxes


def write_image(path: Path, picture: np.ndarray) -> None:
    """Write an image, in the format of its suffix, unless it is there."""
    if not path.is_file():
        make_folder(path.parent)
        _write(path, cv2.imencode(path.suffix, picture)[1].tobytes())


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def write_keyed(root: Path, stem: str, content: Any, suffix: str) -> str:
    """Write a file under a name of its content, so that none is overwritten.

    Args:
        root (Path): Its folder.
        stem (str): What its name begins with.
        content: Text; otherwise it is written as JSON, or as a pickle.
        suffix (str): ``'.txt'``, ``'.json'`` or ``'.pkl'``.

    Returns:
        str: The name.
    """
    if suffix == '.txt':
        data = content.encode()
    elif suffix == '.json':
        data = json.dumps(content).encode()
    else:
        data = pickle.dumps(content)
    name = f'{stem}-{hashlib.sha256(data).hexdigest()[:12]}{suffix}'
    if not (root / name).is_file():
        _write(root / name, data)
    return name
