# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Clips made ready by the steps of a test pipeline."""

from typing import Any, NoReturn

import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS
from torch import Tensor

from ...datasets import ReadClip
from ...errors import UsageError
from ...models import MutualLearningMixin
from ...models.tasks.base import Batch
from .reader import Reader, naming, steps_of


class ClipReader(Reader):
    """Clips for recognizers, as mmaction2's data sets and inferencer."""

    what = 'clip'
    array_dims = 4
    array_shape = '(T, H, W, 3) in RGB order, frames put together by np.stack'
    tensor_dims = (4, 5, 6)
    tensor_shapes = '(3, T, H, W), (N, 3, T, H, W) or (N, views, 3, T, H, W)'

    def __init__(self, dataset: dict, model: MutualLearningMixin) -> None:
        super().__init__(dataset, model)
        steps = list(steps_of(dataset['pipeline']))
        decoding = [i for i, s in enumerate(steps) if 'Decode' in s.kind]
        if not decoding:
            raise UsageError(
                'the test pipeline decodes no frames: put in OpenCVDecode, '
                'PyAVDecode, DecordDecode or RawFrameDecode'
            )
        reading = steps[: decoding[-1] + 1]
        rest = steps[decoding[-1] + 1 :]
        self._finish = Compose([step.settings for step in rest])
        self._from_array = Compose(
            [_packing('array')]
            + [
                dict(type='mmaction.ArrayDecode')
                if 'Decode' in step.kind
                else step.settings
                for step in reading
                if 'Init' not in step.kind
            ]
        )
        self._folders = reading[-1].kind == 'RawFrameDecode'
        names = ('filename_tmpl', 'start_index') if self._folders else ()
        self._pack = TRANSFORMS.build(
            _packing(
                'rawframes' if self._folders else 'video',
                **{k: dataset[k] for k in names if k in dataset},
            )
        )
        self._from_file: Any = None
        self._missing = ''
        settings = [step.settings for step in reading]
        try:
            self._from_file = (
                Compose(settings) if self._folders else _ReadVideo(settings)
            )
        except UsageError as error:
            # Of a decoder, which arrays do not need.
            self._missing = f'{error}, or give the clip as an array'

    def read_file(self, file: str) -> dict:
        """Return what the test set would deliver for a video or folder."""
        if self._missing:
            raise UsageError(self._missing)
        if not self._folders:
            return self._finish(self._from_file(self._pack(file)))
        with naming(
            f'folder {file!r}',
            'one of its frames is no image, or a broken one',
            'the test pipeline reads folders of frames named '
            f'{self._pack.filename_tmpl!r}, give one, or the clip as an array',
        ):
            results = self._pack(file)
            if not results['total_frames']:
                raise OSError('it holds no such frames')
            results = self._from_file(results)
        return self._finish(results)

    def read_array(self, array: np.ndarray) -> dict:
        """Return what the stock inferencer's pipeline makes of an array."""
        return self._finish(self._from_array(array))

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
        if inputs.dim() == 5:
            inputs = inputs[:, None]
        return inputs, [ActionDataSample() for _ in inputs]


class _ReadVideo(ReadClip):
    """Says what to do about a file that no annotation list names."""

    def _refuse(self, file: str, reason: str) -> NoReturn:
        raise UsageError(
            f'clip {file!r} cannot be read ({reason}): give the path of a '
            'video file, or the clip as an array'
        )


def _packing(input_format: str, **settings: Any) -> dict:
    """The step by which stock inferencers begin."""
    return dict(
        type='mmaction.InferencerPackInput',
        input_format=input_format,
        **settings,
    )
