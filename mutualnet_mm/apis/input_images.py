# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Images made ready by the steps of a test pipeline."""

from contextlib import contextmanager
from typing import Any, Iterator, Tuple

import cv2
import numpy as np
import torch.nn.functional as F
from mmcv.image.geometric import rescale_size
from mmengine.dataset import Compose
from mmengine.model import stack_batch
from mmengine.registry import TRANSFORMS
from torch import Tensor

from ..errors import ConfigError
from ..models import MutualLearningMixin
from ..models.tasks.base import Batch
from .pipelines import Step, pipeline_steps

_UNBOUND = 10**9  # a long edge that no image reaches


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


class ImageReader(Reader):
    """Images for classifiers, as mmpretrain's data sets and inferencer."""

    def __init__(self, dataset: dict, model: MutualLearningMixin) -> None:
        super().__init__(dataset, model)
        # Stock normalisation makes three channels of a grey one.
        self.takes_grey = hasattr(model.data_preprocessor, 'mean')
        steps = list(steps_of(dataset['pipeline']))
        loading = [s for s in steps if s.kind == 'LoadImageFromFile']
        self._load = [step.settings for step in loading[:1]]
        self._from_file = Compose(self._load)
        self._finish = Compose(
            [
                step.settings
                for step in steps
                # Nobody has annotations of a new image.
                if step not in loading and 'Annotations' not in step.kind
            ]
        )

    def read_file(self, file: str) -> dict:
        """Return what the test set would deliver for a file."""
        if not self._load:
            raise ConfigError(
                f'image {file!r} is a file, but the test set, '
                f'{self.dataset.get("type")}, holds arrays (there is no '
                'LoadImageFromFile): give an array with the same order of '
                'colours'
            )
        broken = 'it is no image, or a broken one'
        remedy = 'give the path of an image file'
        with naming(f'image {file!r}', broken, remedy):
            results = self._from_file(dict(img_path=file))
            if results is None:  # by ignore_empty
                raise OSError(broken)
        return self._finish(results)

    def read_array(self, array: np.ndarray) -> dict:
        """Return what the stock inferencer's pipeline makes of an array."""
        shape = array.shape[:2]
        return self._finish(dict(img=array, img_shape=shape, ori_shape=shape))

    def batch(self, inputs: Tensor) -> Batch:
        """Add empty data samples."""
        from mmpretrain.structures import DataSample

        return inputs, [DataSample() for _ in inputs]


class DetectionReader(ImageReader):
    """Images for detectors, as mmdet's data sets and inferencer."""

    def __init__(self, dataset: dict, model: MutualLearningMixin) -> None:
        super().__init__(dataset, model)
        self.takes_grey = False  # stock normalisation refuses them
        settings = self._load[0] if self._load else {}
        self._from_array = TRANSFORMS.build(
            dict(settings, type='mmdet.LoadImageFromNDArray')
        )
        self._scale = (_UNBOUND, model.space.full.resolution)
        for step in pipeline_steps('', dataset):
            resize = step.settings
            if step.kind == 'MultiResolution':
                resize = resize['resize']
            if resize.get('keep_ratio') and 'scale' in resize:
                self._scale = tuple(resize['scale'])

    def read_array(self, array: np.ndarray) -> dict:
        """Return what the stock inferencer's pipeline makes of an array."""
        return self._finish(self._from_array(dict(img=array)))

    def batch(self, inputs: Tensor) -> Batch:
        """Scale and pad original images as the test pipeline does."""
        from mmdet.structures import DetDataSample

        h, w = inputs.shape[2:]
        new_w, new_h = rescale_size((w, h), self._scale)
        images = F.interpolate(
            inputs, (new_h, new_w), mode='bilinear', antialias=True
        )
        preprocessor = self.model.data_preprocessor
        padded = stack_batch(
            list(images),
            preprocessor.pad_size_divisor,
            preprocessor.pad_value,
        )
        shape = tuple(padded.shape[2:])
        meta = dict(
            ori_shape=(h, w),
            img_shape=(new_h, new_w),
            scale_factor=(new_w / w, new_h / h),
            pad_shape=shape,
            batch_input_shape=shape,
        )
        return padded, [DetDataSample(metainfo=meta) for _ in padded]


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
        raise ConfigError(
            f'{name} cannot be read ({reason}): {remedy}'
        ) from error
