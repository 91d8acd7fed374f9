# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a test pipeline makes of the size of an image."""

import logging
from typing import Any, List, Optional, Sequence

import numpy as np
from mmengine.dataset import Compose
from mmengine.logging import print_log

from ..errors import ConfigError, first_line
from ..subnet import COMMON_SHAPE, Size
from .pipelines import Step


def after_loading(pipeline: Any) -> List[dict]:
    """Settings of the steps for an image that is loaded already.

    Those that load it, or its annotations, are left out.

    Args:
        pipeline (list[dict]): As a data set of images has it.
    """
    return [
        settings
        for settings in pipeline
        if not (
            Step('', settings).kind.startswith('Load')
            or 'Annotations' in Step('', settings).kind
        )
    ]


class BlankImages:
    """Runs the steps of a test pipeline on images of zeros.

    So the sizes are those that the stock steps make, whatever they are.

    Args:
        pipeline (list[dict]): As a data set of images has it.
        channels (int): Channels of an image. Defaults to 3.
    """

    def __init__(self, pipeline: Any, channels: int = 3) -> None:
        self._steps = Compose(after_loading(pipeline))
        self._channels = channels
        loads_floats = any(s.get('to_float32') for s in pipeline)
        self._dtype = np.float32 if loads_floats else np.uint8

    def __call__(self, shape: Size) -> dict:
        """Return what is packed for an image of a height and width."""
        image = np.zeros((*shape, self._channels), self._dtype)
        return self._steps(dict(img=image, img_shape=shape, ori_shape=shape))

    def delivered(self, shape: Size) -> Size:
        """Height and width of what is packed."""
        height, width = self(shape)['inputs'].shape[-2:]
        return height, width


def delivered_shape(
    pipeline: Any,
    image_shape: Optional[Sequence[int]] = None,
    channels: int = 3,
) -> Optional[Size]:
    """Height and width of an image behind the steps of a test pipeline.

    Args:
        pipeline (list[dict]): As a data set of images has it.
        image_shape (Sequence[int], optional): Height and width of the
            original image. Defaults to 480 x 640, COCO's most common size.
        channels (int): Channels of an image. Defaults to 3.

    Returns:
        tuple or None: None where no image is given and the pipeline leaves
        its size to the data set, or does not run on an image of zeros.

    Raises:
        ConfigError: If it does not run on one of the given size.
    """
    shape = COMMON_SHAPE
    if image_shape is not None:
        shape = image_shape[0], image_shape[1]
    larger = 2 * shape[0], 2 * shape[1]
    try:
        run = BlankImages(pipeline, channels)
        delivered = run.delivered(shape)
        # Where it is as it was, by chance or because no step resizes it.
        is_left = delivered == shape and run.delivered(larger) == larger
    except Exception as error:  # whatever a step may raise
        reason = (
            'the test pipeline does not run on an image of zeros '
            f'({type(error).__name__}: {first_line(error)})'
        )
        if image_shape is not None:
            raise ConfigError(
                f'{reason}, so what it makes of one of {shape[0]} x '
                f'{shape[1]} is not known: leave the image shape out'
            ) from error
        print_log(
            f'{reason}: costs are those of the full resolution',
            logger='current',
            level=logging.WARNING,
        )
        return None
    return None if is_left and image_shape is None else delivered
