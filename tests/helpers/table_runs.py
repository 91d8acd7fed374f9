"""Short videos, and what a training run leaves for a query table."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mutualnet_mm.apis import AdaptiveModel
from mutualnet_mm.query_table import QueryTable


class Run(NamedTuple):
    """What was trained, and what was made of it."""

    cfg: Config
    metrics: dict
    folder: Path
    table: QueryTable
    net: AdaptiveModel


def make_clips(root, number):
    """Write videos of a moving box, and ``list.txt``: one label each."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(number):
        path = str(root / f'{i}.avi')
        writer = cv2.VideoWriter(
            path, cv2.VideoWriter_fourcc(*'MJPG'), 15, (64, 48)
        )
        if not writer.isOpened():
            pytest.skip('this OpenCV writes no videos')
        still = rng.integers(0, 150, (48, 64, 3), np.uint8)
        for t in range(12):
            frame = still.copy()
            frame[10:30, 4 * t : 4 * t + 12, i % 3] += 100
            writer.write(frame)
        writer.release()
        lines.append(f'{i}.avi {i % 3}\n')
    (root / 'list.txt').write_text(''.join(lines))
    return lines
