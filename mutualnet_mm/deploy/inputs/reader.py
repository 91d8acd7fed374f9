# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What readers of images and of clips have in common."""

from contextlib import contextmanager
from typing import Any, Iterator, Tuple

import cv2
import numpy as np
from torch import Tensor

from ...config.pipelines import Step
from ...errors import UsageError
from ...models import MutualLearningMixin
from ...models.tasks.base import Batch


class Reader:
    """What differs between the tasks when inputs are made ready.

    Args:
        dataset (dict): Settings of a test set, with its ``pipeline``.
        model (MutualLearningMixin): For which inputs are made.

    Attributes:
        what (str): Name of one input.
        array_dims (int): Of one input as an array, and as a tensor.
        array_shape (str): The same in words.
        takes_grey (bool): Whether arrays may have no axis of colours.
        tensor_dims (tuple[int]): Of a batch, and of one input.
        tensor_shapes (str): The same in words.
    """

    what = 'image'
    array_dims = 3
    array_shape = '(H, W, 3) in BGR order, as cv2.imread gives it'
    takes_grey = False
    tensor_dims: Tuple[int, ...] = (3, 4)
    tensor_shapes = '(3, H, W) or (N, 3, H, W)'

    def __init__(self, dataset: dict, model: MutualLearningMixin) -> None:
        self.dataset = dataset
        self.model = model

    def read_file(self, file: str) -> dict:
        """Return what the test set would deliver for a file."""
        raise NotImplementedError(type(self).__name__)

    def read_array(self, array: np.ndarray) -> dict:
        """Return what the stock inferencer's pipeline makes of an array."""
        raise NotImplementedError(type(self).__name__)

    def batch(self, inputs: Tensor) -> Batch:
        """Complete a preprocessed batch, by data samples among others."""
        raise NotImplementedError(type(self).__name__)


def steps_of(transforms: Any) -> Iterator[Step]:
    """Yield the steps of a pipeline, of ``ReadClip`` those inside."""
    for settings in transforms:
        step = Step('', settings)
        if step.kind == 'ReadClip':
            yield from steps_of(settings['transforms'])
        else:
            yield step


@contextmanager
def naming(name: str, broken: str, remedy: str) -> Iterator[None]:
    """Name what cannot be read, whatever the decoder in use raises.

    Args:
        name (str): What it is.
        broken (str): Reason where the decoder gives none but a failed
            assertion.
        remedy (str): What to do.
    """
    try:
        yield
    except Exception as error:
        reason = getattr(error, 'strerror', None) or ' '.join(
            str(error).split()
        )
        if isinstance(error, (AssertionError, cv2.error)):
            reason = broken
        raise UsageError(
            f'{name} cannot be read ({reason}): {remedy}'
        ) from error
