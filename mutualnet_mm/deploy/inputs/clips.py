# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Prepare clips by the steps of a test pipeline."""

from typing import Any, NoReturn, Tuple

import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS
from torch import Tensor

from ...config.views import views_of
from ...datasets import ReadClip
from ...errors import UnreadableError, UsageError
from ...models import MutualLearningMixin
from ...models.tasks.samples import Batch
from ...subnet import Size
from .reader import (
    Reader,
    naming,
    naming_steps,
    register_reader,
    steps_of,
)


@register_reader('ActionTask')
class ClipReader(Reader):
    """Reads clips as mmaction2's data sets and inferencer do."""

    what = 'clip'
    array_dims = 4
    tensor_dims: Tuple[int, ...] = (4, 5, 6)
    tensor_shapes = '(C, T, H, W), (N, C, T, H, W) or (N, views, C, T, H, W)'
    has_view_axis = True

    def __init__(self, dataset: dict, model: MutualLearningMixin) -> None:
        super().__init__(dataset, model)
        steps = list(steps_of(dataset['pipeline']))
        modality, full = dataset.get('modality'), model.space.full.resolution
        self._view = views_of(steps, modality, (full, full)).shape
        if modality == 'Flow':
            self.array_channels = 2  # 2D networks take several frames as one
        self._from_array: Any = None
        self._missing = ''
        if any(step.kind == 'PoseDecode' for step in steps):
            self.channel_order = 'maps of poses'
            self._missing = (
                f'the {self.channels} channels of clips are made of poses '
                '(PoseDecode), not of pictures: give them as a tensor'
            )
            return
        if self.channels == 3:
            self.channel_order = 'RGB'  # as all decoders of mmaction2 give
        elif modality == 'Flow':
            self.channel_order = 'xy'
        decoding = [i for i, s in enumerate(steps) if 'Decode' in s.kind]
        if not decoding:
            raise UsageError(
                'the test pipeline decodes no frames: put in OpenCVDecode, '
                'PyAVDecode, DecordDecode or RawFrameDecode'
            )
        reading = steps[: decoding[-1] + 1]
        rest = steps[decoding[-1] + 1 :]
        self._finish = Compose([step.settings for step in rest])
        decode = dict(type='mmaction.ArrayDecode')
        self._from_array = Compose(
            [_packing('array')]
            + [
                (decode if self.channels == 3 else _decode_array)
                if 'Decode' in step.kind
                else step.settings
                for step in reading
                if 'Init' not in step.kind
            ]
        )
        self._folders = reading[-1].kind == 'RawFrameDecode'
        names = ('filename_tmpl', 'start_index', 'modality')
        given = dataset if self._folders else {}
        self._pack = TRANSFORMS.build(
            _packing(
                'rawframes' if self._folders else 'video',
                **{k: given[k] for k in names if k in given},
            )
        )
        self._from_file: Any = None
        settings = [step.settings for step in reading]
        try:
            self._from_file = (
                Compose(settings) if self._folders else _ReadVideo(settings)
            )
        except UsageError as error:
            # It names a decoder, which arrays do not need.
            self._missing = f'{error}, or give the clip as an array'

    @property
    def array_shape(self) -> str:
        """Shape of one clip as an array, in words."""
        kind = {2: 'of flow in x and y', 3: 'in RGB order'}
        return (
            f'(T, H, W, {self.array_channels}) '
            f'{kind.get(self.array_channels, "")}, '
            'frames put together by np.stack'
        )

    def read_file(self, file: str) -> dict:
        """Return what the test set would deliver for a video or folder."""
        if self._missing:
            raise UsageError(self._missing)
        if not self._folders:
            results = self._from_file(self._pack(file))
            return self._finished(f'clip {file!r}', results)
        with naming(
            f'folder {file!r}',
            'one of its frames is not an image, or a broken one',
            'the test pipeline reads folders of frames named '
            f'{self._pack.filename_tmpl!r}, give one, or the clip as an array',
        ):
            results = self._pack(file)
            if not results['total_frames']:
                raise OSError('it holds no such frames')
            results = self._from_file(results)
        return self._finished(f'folder {file!r}', results)

    def read_array(self, array: np.ndarray, name: str) -> dict:
        """Return what the stock inferencer's pipeline makes of an array."""
        if self._from_array is None:
            raise UsageError(self._missing)
        return self._finished(name, self._from_array(array))

    def _finished(self, name: str, results: dict) -> dict:
        with naming_steps(f'{name}, frames', results['imgs'][0].shape):
            return self._finish(results)

    def tensor_shape(self, image_shape: Size) -> Tuple[int, ...]:
        """Shape of one view as the test pipeline delivers it."""
        del image_shape
        model = self.model
        return model.task.input_shape(model, model.space.full, self._view)[1:]

    def one_view(self, inputs: Tensor) -> Tensor:
        """Drop all views, (N, views, C, T, H, W), but the first."""
        return inputs[:, :1].contiguous()

    def batch(self, inputs: Tensor) -> Batch:
        """Add the axis of views and empty data samples."""
        from mmaction.structures import ActionDataSample

        height, width = inputs.shape[-2:]
        full = self.model.space.full.resolution
        if min(height, width) < full:
            raise UsageError(
                f'a clip of {height} x {width} pixels was given, but the full '
                f'resolution is {full}: give {full} x {full} or larger views'
            )
        if inputs.dim() == 5 and self.has_view_axis:
            inputs = inputs[:, None]
        return inputs, [ActionDataSample() for _ in inputs]


@register_reader('SegmentsTask')
class SegmentReader(ClipReader):
    """Reads videos for 2D recognizers, whose views share an axis."""

    tensor_dims = (4, 5)
    tensor_shapes = '(T, C, H, W) or (N, T, C, H, W)'
    has_view_axis = False

    def one_view(self, inputs: Tensor) -> Tensor:
        """Drop all views, (N, views x segments, C, H, W), but the first."""
        segments = self.tensor_shape(())[0]
        return inputs[:, :segments].contiguous()


# Boxes of persons come from a data set alone.
register_reader('ActionDetectionTask')(Reader)


class _ReadVideo(ReadClip):
    """Says what to do about a file that no annotation list names."""

    def _refuse(self, file: str, reason: str) -> NoReturn:
        raise UnreadableError(
            f'clip {file!r} cannot be read ({reason}): give the path of a '
            'video file, or the clip as an array'
        )


def _decode_array(results: dict) -> dict:
    """Pick frames of any channels, as ``RawFrameDecode`` stacks flow.

    The stock ``ArrayDecode`` makes two grey images of a frame of flow, which
    no later step puts together.
    """
    frames = list(results['array'][results['frame_inds'].reshape(-1)])
    shape = frames[0].shape[:2]
    return dict(results, imgs=frames, img_shape=shape, original_shape=shape)


def _packing(input_format: str, **settings: Any) -> dict:
    """Return the step that stock inferencers begin with."""
    return dict(
        type='mmaction.InferencerPackInput',
        input_format=input_format,
        **settings,
    )
