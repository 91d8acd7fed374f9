# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Prepare images by the steps of a test pipeline."""

from typing import Tuple

import numpy as np
import torch.nn.functional as F
from mmcv.image.geometric import rescale_size
from mmengine.dataset import Compose
from mmengine.model import stack_batch
from mmengine.registry import TRANSFORMS
from torch import Tensor

from ...config.pipelines import both_sides, pipeline_steps
from ...errors import UsageError
from ...models import MutualLearningMixin
from ...models.tasks.samples import Batch
from ...subnet import Size
from .reader import Reader, naming, register_reader, steps_of

_UNBOUND = 10**9  # a long edge that no image reaches


@register_reader('ClassificationTask')
class ImageReader(Reader):
    """Reads images as mmpretrain's data sets and inferencer do."""

    def __init__(self, dataset: dict, model: MutualLearningMixin) -> None:
        super().__init__(dataset, model)
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
        self._finish = Compose(
            [
                step.settings
                for step in steps
                # A new image has no annotations.
                if step not in loading and 'Annotations' not in step.kind
            ]
        )

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
        return self._finish(results)

    def read_array(self, array: np.ndarray) -> dict:
        """Return what the stock inferencer's pipeline makes of an array."""
        shape = array.shape[:2]
        return self._finish(dict(img=array, img_shape=shape, ori_shape=shape))

    def batch(self, inputs: Tensor) -> Batch:
        """Add empty data samples."""
        from mmpretrain.structures import DataSample

        height, width = inputs.shape[-2:]
        full = self.model.space.full.resolution
        if (height, width) != (full, full):
            raise UsageError(
                f'the tensor is {height} x {width}: give {full} x {full}, the '
                'full resolution'
            )
        return inputs, [DataSample() for _ in inputs]


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
        self._scale = (_UNBOUND, model.space.full.resolution)
        for step in pipeline_steps('', dataset):
            resize = step.settings
            if step.kind == 'MultiResolution':
                resize = resize['resize']
            sides = both_sides(resize.get('scale'))
            if resize.get('keep_ratio') and sides is not None:
                self._scale = sides

    def read_array(self, array: np.ndarray) -> dict:
        """Return what the stock inferencer's pipeline makes of an array."""
        return self._finish(self._from_array(dict(img=array)))

    def tensor_shape(self, image_shape: Size) -> Tuple[int, ...]:
        """Shape of an original image of ``image_shape``."""
        return (self.channels, *image_shape)

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
