# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Turn what a user gives into the batch that a test loop would see."""

import logging
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from torch import Tensor

from ...config.pipelines import stage_datasets
from ...config.sizes import check_resolution
from ...errors import UnreadableError, UsageError
from ...models import MutualLearningMixin
from ...models.tasks.samples import Batch
from ...subnet import Size
from .reader import Reader, find_reader

Images = Union[
    str, Path, np.ndarray, Tensor, Sequence[Union[str, Path, np.ndarray]]
]


class InputPipeline:
    """Makes preprocessed batches at the full resolution.

    Files and arrays go through the config's test pipeline and the model's
    data preprocessor, so that the batch is the one that the test loop would
    see, with all views of a clip; mmaction2's inferencer takes only one. No
    ground truth is needed. If there are several test sets, the first counts.

    It takes:

    - the path of an image, or of a video (a folder of frames where the test
      pipeline reads those), or a list of paths;
    - uint8 arrays, one or a list of them. An image is (H, W, 3) in BGR order,
      as OpenCV reads it, or grey, (H, W), where a classifier normalises it; a
      clip is (T, H, W, 3) in **RGB** order, as mmaction2's ``ArrayDecode``
      takes it. Where the data set itself holds arrays (CIFAR), images are in
      its order. A stacked array, (N, H, W, 3) or (N, T, H, W, 3), counts as a
      list. If the first convolution of a network takes C channels, other than
      3, so do its arrays (of flow that is stacked to channels, 2);
    - a tensor as the data preprocessor delivers it: float, normalised. Images
      are (N, C, H, W), clips (N, C, T, H, W) or, with several views,
      (N, views, C, T, H, W); N may be left out, except with several views.
      2D recognizers take the frames of all views, (N, T, C, H, W). A
      classifier takes it at the size of the test pipeline; a recognizer also
      takes larger views. For a detector it is an original image of any
      size: it is scaled and padded as the test pipeline does it, and boxes
      are in its coordinates.

    Transforms are built once, here; calls are thread-safe.

    Args:
        cfg (Config): Its ``default_scope`` becomes the current one.
        model (MutualLearningMixin): Built from ``cfg``. It determines the
            task, the full resolution and the device.

    Raises:
        UsageError: If the config has no test pipeline, or one that decodes
            nothing or does not deliver the full resolution.

    Example:
        >>> pipeline = InputPipeline(cfg, model)
        >>> inputs, data_samples = pipeline(['cat.jpg', 'dog.jpg'])
    """

    def __init__(self, cfg: Config, model: MutualLearningMixin) -> None:
        dataset = _test_set(cfg)
        check_resolution(cfg, ('test',))
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        self._model = model
        self._has_warned = False
        self._reader = find_reader(type(model.task))(dataset, model)

    def __call__(
        self, images: Images, first: int = 1, number: Optional[int] = None
    ) -> Batch:
        """Return the batch: inputs, and one stock data sample for each.

        Inputs are not changed. A clip that is shorter than what the pipeline
        samples is handled by the stock sampling step, which repeats it
        (``out_of_bound_opt``).

        Args:
            images (str, Path, np.ndarray, Tensor or list): See the class.
            first (int): What errors count the first array as. Defaults to 1.
            number (int, optional): How many arrays errors speak of, where
                these are some of more. Defaults to all that are given.

        Raises:
            UnreadableError: In one line, if a file cannot be read, or has a
                size that the test pipeline cannot work on.
            UsageError: If nothing, inputs of several kinds or an input of a
                wrong type or shape is given; or if the batch has no size
                that subnets can use.
        """
        model = self._model
        if isinstance(images, Tensor):
            inputs, samples = self._reader.batch(self._batched(images))
        else:
            batch = pseudo_collate(self._packed(images, first, number))
            self._warn_of_padding(batch['inputs'])
            data = model.data_preprocessor(batch, False)
            inputs, samples = data['inputs'], data['data_samples']
        self._check_channels(inputs)
        model.task.check_test(model, inputs, samples)
        return inputs, samples

    def _warn_of_padding(self, inputs: Sequence[Tensor]) -> None:
        """Say once that images which are pooled whole change each other."""
        # Where inputs may have any height, padding is a part of the network.
        may_be_padded = 'height' in self._model.task.input_axes.values()
        sizes = {tuple(each.shape[-2:]) for each in inputs}
        if len(sizes) == 1 or may_be_padded or self._has_warned:
            return
        self._has_warned = True
        print_log(
            f'a batch has inputs of {len(sizes)} sizes, which are padded to '
            'one, and predictions depend on that: give batch_size=1, or crop '
            'in the test pipeline',
            logger='current',
            level=logging.WARNING,
        )

    @property
    def channel_order(self) -> Optional[str]:
        """str: Channel order of arrays, see :class:`~.reader.Reader`."""
        return self._reader.channel_order

    def tensor_shape(self, image_shape: Size) -> Tuple[int, ...]:
        """Shape of one input as a tensor, see :class:`~.reader.Reader`."""
        return self._reader.tensor_shape(image_shape)

    def one_view(self, inputs: Tensor) -> Tensor:
        """Return a batch with the first view of each video."""
        return self._reader.one_view(inputs)

    def listed(self, images: Any) -> list:
        """Return files or arrays one by one: a list, or a stack, of them."""
        if isinstance(images, np.ndarray):
            stacked = images.ndim == self._reader.array_dims + 1
            return list(images) if stacked else [images]
        return list(images) if isinstance(images, (list, tuple)) else [images]

    def can_read(self, file: Union[str, Path]) -> bool:
        """Whether a file can be read; the log names it where it cannot."""
        try:
            self._packed([file])
        except UnreadableError as error:
            print_log(f'skipped: {error}', 'current', logging.WARNING)
            return False
        return True

    def _check_channels(self, inputs: Tensor) -> None:
        reader = self._reader
        found = inputs.shape[self._model.task.channel_axis]
        if found != reader.channels:
            raise UsageError(
                f'the test pipeline makes {found} channels of what was given, '
                f'but the network takes {reader.channels}: give '
                f'{reader.what}s of {reader.channels} channels, or a config '
                'whose test pipeline fits the network'
            )

    def _packed(
        self, images: Any, first: int = 1, number: Optional[int] = None
    ) -> List[dict]:
        """Return what the data set would deliver, one by one."""
        reader = self._reader
        listed = self.listed(images)
        if not listed:
            raise UsageError(
                f'no {reader.what} was given: give one {reader.what} or more'
            )
        kinds = {_kind(item, reader) for item in listed}
        if len(kinds) > 1:
            raise UsageError(
                f'{" and ".join(sorted(kinds))} were given together: give '
                'all as the same'
            )
        if kinds == {'files'}:
            return [reader.read_file(str(item)) for item in listed]
        names = [
            f'{reader.what} {i} of {number or len(listed)}'
            for i in range(first, first + len(listed))
        ]
        for array, name in zip(listed, names):
            self._check_array(array, name)
        return [reader.read_array(*pair) for pair in zip(listed, names)]

    def _check_array(self, array: np.ndarray, name: str) -> None:
        reader, shape = self._reader, array.shape
        grey = reader.takes_grey and len(shape) == 2
        coloured = (
            len(shape) == reader.array_dims
            and shape[-1] == reader.array_channels
        )
        if not (grey or coloured) or 0 in shape:
            raise UsageError(
                f'{name} is an array of shape {shape}: give '
                f'{reader.array_shape}'
            )
        if array.dtype != np.uint8:
            raise UsageError(
                f'{name} is an array of {array.dtype}: give pixel values, '
                '0 to 255, as uint8'
            )

    def _batched(self, images: Tensor) -> Tensor:
        """Return a batch; refuse what no data preprocessor delivers."""
        if not images.is_floating_point():
            raise UsageError(
                f'a tensor of {images.dtype} was given: tensors are float and '
                'normalised, as the data preprocessor delivers them; give '
                'pixel values as a numpy array'
            )
        reader, shape = self._reader, tuple(images.shape)
        axis = self._model.task.channel_axis
        if (
            len(shape) not in reader.tensor_dims
            or shape[axis] != reader.channels
            or 0 in shape
        ):
            raise UsageError(
                f'a tensor of shape {shape} was given: give '
                f'{reader.tensor_shapes.replace("C", str(reader.channels))}'
            )
        if len(shape) == reader.array_dims:
            images = images[None]
        device = self._model.data_preprocessor.device
        return images.detach().to(device, torch.float32)


def _test_set(cfg: Config) -> dict:
    """Return the settings of the first test set that has a pipeline."""
    for _, dataset in stage_datasets(cfg, ('test',)):
        if dataset.get('pipeline'):
            return dataset
    raise UsageError(
        'the config has no test_dataloader.dataset.pipeline, which makes '
        'images ready for the network: set it'
    )


def _kind(item: Any, reader: Reader) -> str:
    if isinstance(item, (str, Path)):
        return 'files'
    if isinstance(item, np.ndarray):
        return 'arrays'
    if isinstance(item, Tensor):
        raise UsageError(
            'a list of tensors was given: make one tensor of them with '
            'torch.stack'
        )
    raise UsageError(
        f'{reader.what}s cannot be given as {type(item).__name__}: give the '
        f'path of a file, or an array, {reader.array_shape}'
    )
