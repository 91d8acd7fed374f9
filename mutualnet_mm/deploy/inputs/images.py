# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Prepare images by the steps of a test pipeline."""

from functools import cached_property
from typing import Optional, Tuple

import numpy as np
import torch.nn.functional as F
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from torch import Tensor

from ...config.blank import BlankImages, after_loading, delivered_shape
from ...errors import UsageError
from ...models import MutualLearningMixin
from ...models.tasks.samples import Batch
from ...subnet import COMMON_SHAPE, Size
from .reader import (
    Reader,
    naming,
    naming_steps,
    register_reader,
    steps_of,
)


@register_reader('ClassificationTask')
class ImageReader(Reader):
    """Reads images as mmpretrain's data sets and inferencer do."""

    def __init__(self, dataset: dict, model: MutualLearningMixin) -> None:
        super().__init__(dataset, model)
        self._scope = DefaultScope.get_current_instance()
        if self.channels == 3:
            # Stock normalisation expands a grey channel to three.
            self.takes_grey = hasattr(model.data_preprocessor, 'mean')
        steps = list(steps_of(dataset['pipeline']))
        loading = [s for s in steps if s.kind == 'LoadImageFromFile']
        self._load = [step.settings for step in loading[:1]]
        if self._load and self.channels == 3:
            self.channel_order = 'BGR'
        elif (
            self._load
            and self.channels == 4
            # The one decoder of mmcv that keeps the order of the file.
            and self._load[0].get('imdecode_backend') != 'tifffile'
        ):
            self.channel_order = 'BGRA'
        self._from_file = Compose(self._load)
        self._finish = Compose(after_loading(dataset['pipeline']))

    @property
    def array_shape(self) -> str:
        """Shape of one image as an array, in words."""
        if self.channels == 1:
            return '(H, W), grey'
        if self.channels == 3:
            return '(H, W, 3) in BGR order, as cv2.imread gives it'
        return super().array_shape

    def read_file(self, file: str) -> dict:
        """Return what the test set would deliver for a file."""
        if not self._load:
            raise UsageError(
                f'image {file!r} is a file, but the test set, '
                f'{self.dataset.get("type")}, holds arrays (there is no '
                'LoadImageFromFile): give an array with the same order of '
                'colours'
            )
        broken = 'it is not an image, or a broken one'
        remedy = 'give the path of an image file'
        with naming(f'image {file!r}', broken, remedy):
            results = self._from_file(dict(img_path=file))
            if results is None:  # by ignore_empty
                raise OSError(broken)
        with naming_steps(f'image {file!r}', results['img_shape']):
            return self._finish(results)

    def read_array(self, array: np.ndarray, name: str) -> dict:
        """Return what the stock inferencer's pipeline makes of an array."""
        shape = array.shape[:2]
        if any(step.get('to_float32') for step in self._load):
            array = array.astype(np.float32)  # as files are: resizing differs
        with naming_steps(name, shape):
            return self._finish(
                dict(img=array, img_shape=shape, ori_shape=shape)
            )

    def batch(self, inputs: Tensor) -> Batch:
        """Add empty data samples."""
        from mmpretrain.structures import DataSample

        expected = self.tensor_shape(COMMON_SHAPE)[1:]
        height, width = inputs.shape[-2:]
        if (height, width) != expected:
            raise UsageError(
                f'the tensor is {height} x {width}: give {expected[0]} x '
                f'{expected[1]}, as the test pipeline makes it for the full '
                'network'
            )
        return inputs, [DataSample() for _ in inputs]

    def tensor_shape(self, image_shape: Size) -> Tuple[int, ...]:
        """Shape of an image as the test pipeline delivers it."""
        del image_shape
        task, full = self.model.task, self.model.space.full
        return task.input_shape(self.model, full, self._delivered)[1:]

    @cached_property
    def _delivered(self) -> Optional[Size]:
        # Another network may have changed the default scope since.
        scope = self._scope and self._scope.scope_name
        with DefaultScope.overwrite_default_scope(scope):
            return delivered_shape(
                self.dataset['pipeline'], None, self.channels
            )


@register_reader('DetectionTask')
class DetectionReader(ImageReader):
    """Reads images as mmdet's data sets and inferencer do."""

    def __init__(self, dataset: dict, model: MutualLearningMixin) -> None:
        super().__init__(dataset, model)
        if self.channels == 3:
            self.takes_grey = False  # stock normalisation refuses it
        settings = self._load[0] if self._load else {}
        self._from_array = TRANSFORMS.build(
            dict(settings, type='mmdet.LoadImageFromNDArray')
        )
        self._blank = BlankImages(dataset['pipeline'], self.channels)

    def read_array(self, array: np.ndarray, name: str) -> dict:
        """Return what the stock inferencer's pipeline makes of an array."""
        with naming_steps(name, array.shape):
            return self._finish(self._from_array(dict(img=array)))

    def tensor_shape(self, image_shape: Size) -> Tuple[int, ...]:
        """Shape of an original image of ``image_shape``."""
        return (self.channels, *image_shape)

    def batch(self, inputs: Tensor) -> Batch:
        """Scale and pad original images as the test pipeline does."""
        from mmdet.structures import DetDataSample

        h, w = inputs.shape[2:]
        # The same steps on an image of zeros say where they put it, and what
        # is around it.
        with naming_steps('a tensor', (h, w)):
            packed = self._blank((h, w))
        data = self.model.data_preprocessor(pseudo_collate([packed]), False)
        canvas, meta = data['inputs'], data['data_samples'][0].metainfo
        width, height = meta.get('scale_factor', (1.0, 1.0))
        size = round(h * height), round(w * width)
        top, _, left, _ = map(int, meta.get('border', (0, 0, 0, 0)))
        batch = canvas.repeat(len(inputs), 1, 1, 1)
        image = batch[..., top : top + size[0], left : left + size[1]]
        if tuple(image.shape[2:]) != size:
            raise UsageError(
                'the test pipeline crops images, which cannot be done with '
                'tensors: give files or arrays'
            )
        image.copy_(
            F.interpolate(inputs, size, mode='bilinear', antialias=True)
        )
        return batch, [DetDataSample(metainfo=meta) for _ in batch]
