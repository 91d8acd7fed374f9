# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Where in the original image lies what a classifier sees of it."""

from typing import Any, Tuple

import numpy as np
from mmengine.config import Config

from ..config.pipelines import pipeline_steps, stage_datasets
from ..errors import ConfigError

_STILL = ('LoadImageFromFile', 'PackInputs')
_RESIZING = ('Resize', 'ResizeEdge')
_CROPPING = ('CenterCrop',)


def check_view(cfg: Config) -> None:
    """Refuse test pipelines whose views are not known afterwards.

    Args:
        cfg (Config): Its first test set counts.

    Raises:
        ConfigError: If the pipeline does more than load images, resize them
            once and then crop their centre; names the step.
    """
    place, dataset = next(stage_datasets(cfg, ('test',)), ('', {}))
    last = -1
    for step in pipeline_steps(place, dataset):
        if step.kind in _STILL:
            continue
        order = [_RESIZING, _CROPPING]
        number = next((i for i, o in enumerate(order) if step.kind in o), None)
        if number is None or number <= last:
            raise ConfigError(
                f'{step.place} is a {step.kind}: boxes are found in the '
                'original image where the test pipeline has one Resize or '
                'ResizeEdge at most, then one CenterCrop at most'
            )
        last = number


def to_original(
    box: np.ndarray, sample: Any, size: Tuple[int, int]
) -> np.ndarray:
    """Return a box of the view as one of the original image.

    Args:
        box (np.ndarray): (4,), left, top, right and bottom edge in pixels of
            the view.
        sample (DataSample): With ``ori_shape`` and, where the image was
            resized, ``scale_factor``.
        size (tuple[int]): Height and width of the view.

    Raises:
        ConfigError: If the view is larger than the image, of which it should
            be a part.
    """
    width_scale, height_scale = sample.get('scale_factor', (1.0, 1.0))
    height, width = sample.ori_shape[:2]
    resized = round(height * height_scale), round(width * width_scale)
    if resized[0] < size[0] or resized[1] < size[1]:
        raise ConfigError(
            f'an image of {height} x {width} pixels was resized to '
            f'{resized[0]} x {resized[1]} and padded to {size[0]} x '
            f'{size[1]}: leave out auto_pad, resize to a larger size'
        )
    # As CenterCrop does it.
    top, left = (round((r - s) / 2) for r, s in zip(resized, size))
    moved = box + [left, top, left, top]
    return moved / [width_scale, height_scale, width_scale, height_scale]


def image_size(sample: Any) -> Tuple[int, int]:
    """Height and width of an input, without what its pipeline has padded.

    Args:
        sample (DataSample): With ``img_shape``, and where the image was
            resized and padded, as for YOLOX, ``ori_shape`` and
            ``scale_factor``.
    """
    height, width = sample.img_shape[:2]
    if 'ori_shape' not in sample or 'scale_factor' not in sample:
        return height, width
    width_scale, height_scale = sample.scale_factor[:2]
    return (
        min(height, round(sample.ori_shape[0] * height_scale)),
        min(width, round(sample.ori_shape[1] * width_scale)),
    )
