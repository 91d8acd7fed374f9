# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What readers of images and of clips have in common."""

from contextlib import contextmanager
from typing import (
    Any,
    Callable,
    Iterator,
    Optional,
    Sequence,
    Tuple,
    Type,
    Union,
)

import cv2
import numpy as np
from torch import Tensor

from ...config.pipelines import Step
from ...errors import UnreadableError, UsageError, first_line
from ...models import MutualLearningMixin
from ...models.tasks.samples import Batch
from ...registry import ClassTable
from ...subnet import Size


class Reader:
    """Prepares the inputs of one task.

    A subclass is registered for its task by :func:`register_reader` and
    overrides the methods that raise here. A task without a reader predicts
    prepared batches only.

    Args:
        dataset (dict): Settings of a test set, with its ``pipeline``.
        model (MutualLearningMixin): Model to make inputs for.

    Attributes:
        what (str): Name of one input.
        array_dims (int): Dimensions of one input as an array or tensor.
        tensor_dims (tuple[int]): Dimensions of a batch, and of one input.
        tensor_shapes (str): The same in words, with ``C`` for the channels.
        channels (int): Channels that the network takes.
        array_channels (int): Channels of one input as an array.
        takes_grey (bool): Whether arrays may lack the channel axis.
        channel_order (str, optional): Channel order of the arrays that
            :meth:`read_array` takes, such as ``'BGR'``; None where the data
            set holds arrays in an order of its own.
    """

    what = 'image'
    array_dims = 3
    tensor_dims: Tuple[int, ...] = (3, 4)
    tensor_shapes = '(C, H, W) or (N, C, H, W)'
    channel_order: Optional[str] = None

    def __init__(self, dataset: dict, model: MutualLearningMixin) -> None:
        self.dataset = dataset
        self.model = model
        self.channels = model.task.input_channels(model)
        self.array_channels = self.channels
        self.takes_grey = self.channels == 1

    @property
    def array_shape(self) -> str:
        """Shape of one input as an array, in words."""
        order = f' in {self.channel_order} order' if self.channel_order else ''
        return f'(H, W, {self.array_channels}){order}'

    def read_file(self, file: str) -> dict:
        """Return what the test set would deliver for a file."""
        raise self._refusal('files')

    def read_array(self, array: np.ndarray, name: str) -> dict:
        """Return what the stock inferencer's pipeline makes of an array.

        Args:
            array (np.ndarray): One input.
            name (str): What an error calls it.
        """
        raise self._refusal('arrays')

    def batch(self, inputs: Tensor) -> Batch:
        """Complete a preprocessed batch, for example with data samples."""
        raise self._refusal('tensors')

    def one_view(self, inputs: Tensor) -> Tensor:
        """Return a prepared batch with one view of each input."""
        return inputs

    def tensor_shape(self, image_shape: Size) -> Tuple[int, ...]:
        """Shape of one input as a tensor that :meth:`batch` takes.

        Args:
            image_shape (tuple[int]): Height and width of an original image,
                for tasks that keep them.
        """
        del image_shape
        model = self.model
        return model.task.input_shape(model, model.space.full, None)[1:]

    def _refusal(self, kind: str) -> UsageError:
        return UsageError(
            f'task {self.model.task.name!r} cannot make inputs of {kind}: '
            'register a Reader for it with mutualnet_mm.deploy.inputs.'
            'register_reader, or give prepared batches to predict()'
        )


_READERS: ClassTable = ClassTable()


def register_reader(task: Union[str, type]) -> Callable[[Any], Any]:
    """Return a decorator that makes a class the reader of a task.

    Args:
        task (str or type): Class of the task, or its name, which imports
            nothing.
    """
    return _READERS.registering(task)


def find_reader(task: type) -> Type[Reader]:
    """Return the reader of a task class, else of its nearest base."""
    return _READERS.find(task) or Reader


def steps_of(transforms: Any) -> Iterator[Step]:
    """Yield the steps of a pipeline; of ``ReadClip``, those inside it."""
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
        broken (str): Reason to give where the decoder gives only a failed
            assertion.
        remedy (str): What to do.

    Raises:
        UnreadableError: In place of any error of the ``with`` block.
    """
    try:
        yield
    except Exception as error:
        reason = getattr(error, 'strerror', None) or ' '.join(
            str(error).split()
        )
        if isinstance(error, (AssertionError, cv2.error)):
            reason = broken
        raise UnreadableError(
            f'{name} cannot be read ({reason}): {remedy}'
        ) from error


@contextmanager
def naming_steps(name: str, shape: Sequence[int]) -> Iterator[None]:
    """Name the input that a step of the test pipeline cannot work on.

    Such as an image of 20,000 x 50, whose short edge rounds to no pixel when
    it is resized. Errors that no pixels cause, as of a missing key, are left
    alone.

    Args:
        name (str): What it is.
        shape (Sequence[int]): Of the image or of a frame.

    Raises:
        UnreadableError: In place of such an error of the ``with`` block.
    """
    try:
        yield
    except (cv2.error, ZeroDivisionError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        size = ' x '.join(map(str, shape[:2]))
        reason = first_line(error)
        if isinstance(error, cv2.error):
            reason = f'OpenCV, {error.func}: {error.err}'
        raise UnreadableError(
            f'{name} of {size} pixels (height x width) cannot be prepared by '
            f'the test pipeline ({reason}): crop it, or give another one'
        ) from error
