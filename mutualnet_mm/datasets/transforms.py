# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""All resolutions of a sample, made in the data pipeline."""

import copy
from typing import Any, Dict, List, Optional, Sequence

from mmengine.dataset import Compose

from ..errors import ConfigError
from ..random_state import random_state, set_random_state
from ..registry import TRANSFORMS

CARRIED = 'multi_resolution'
"""Field of a data sample that carries the smaller sizes:
``{resolution: packed results of the stock pipeline}``."""


# Random steps that their names do not tell.
_IN_PIXELS = ('CutOut', 'Cutout', 'MinIoURandomCrop', 'Mosaic', 'MixUp')


@TRANSFORMS.register_module()
class MultiResolution:
    """Resize a sample to every listed resolution from its original image.

    The paper's path: each size is made from the full-quality image by the
    stock ``Resize``, whereas the default path interpolates the full input on
    the device. A worker does not know which sizes a step will draw, so all
    are made; ``loss()`` picks. It comes last in the pipeline, in place of
    the stock resizing and packing. Random crops and flips inside draw the
    same numbers for every size, so that all show the same content. What draws
    in pixels of the resized image comes before it.

    Required keys: those of ``resize`` and ``transforms``.

    The sizes are exactly the paper's: where ``scale`` is a long and a short
    edge, between which an image keeps its ratio, the long edge stays as it
    is. (By default, what the pipeline delivers shrinks as a whole.)

    Args:
        resolution (Sequence[int]): The same as ``mutual.resolution``, the
            full one first.
        resize (dict): Stock transform that gives the full resolution, of a
            random crop or the whole image, with a ``scale``: a number, a pair
            of sides, one of which is the full resolution, or, with
            ``keep_ratio=True``, (long edge, full resolution).
        transforms (list[dict]): Steps that follow for each size: packing, and
            others, of random ones ``RandomFlip`` alone.

    Example:
        >>> dict(
        ...     type='mutualnet_mm.MultiResolution',
        ...     resolution=(600, 480, 360, 240),
        ...     resize=dict(type='Resize', scale=(1000, 600),
        ...                 keep_ratio=True),
        ...     transforms=[dict(type='PackDetInputs')])
    """

    def __init__(
        self, resolution: Sequence[int], resize: dict, transforms: List[dict]
    ) -> None:
        scale = resize.get('scale')
        sides = scale if isinstance(scale, (list, tuple)) else (scale,)
        keeps_ratio = bool(resize.get('keep_ratio'))
        possible = {min(sides)} if keeps_ratio else {*sides}
        if not resolution or resolution[0] not in possible:
            raise ConfigError(
                f'MultiResolution(resolution={resolution!r}) with '
                f'resize.scale={scale!r}: the first resolution must be the '
                "one that resize's scale names"
            )
        for step in transforms:
            kind = str(step.get('type')).rpartition('.')[2]
            if kind == 'Pad' and step.get('size') is not None:
                raise ConfigError(
                    f'MultiResolution(transforms=[...]) has a Pad of size='
                    f'{step["size"]!r}, which would make one size of all: '
                    'leave it out, batches are padded where that is needed'
                )
            if kind in _IN_PIXELS or (
                kind.startswith('Random') and kind != 'RandomFlip'
            ):
                raise ConfigError(
                    f'MultiResolution(transforms=[...]) has a {kind}, which '
                    'would draw another part of each size: put it before the '
                    'MultiResolution'
                )
        self.resolution = tuple(resolution)
        self.pipelines: Dict[int, Compose] = {
            r: Compose(
                [
                    dict(resize, scale=self._scale(scale, keeps_ratio, r)),
                    *copy.deepcopy(list(transforms)),
                ]
            )
            for r in self.resolution
        }

    def _scale(self, scale: Any, keeps_ratio: bool, resolution: int) -> Any:
        if not isinstance(scale, (list, tuple)):
            return resolution
        if keeps_ratio and min(scale) < max(scale):
            return (max(scale), resolution)  # the paper's sizes
        full = self.resolution[0]
        return tuple(int(side * resolution / full + 0.5) for side in scale)

    def __call__(self, results: dict) -> Optional[dict]:
        """Return the packed full size; its data sample carries the others.

        None, for which the data set draws another sample, if a step returns
        it at any of the sizes.
        """
        packed = {}
        before, after = random_state(), None
        for resolution, pipeline in self.pipelines.items():
            set_random_state(before)  # crops and flips are those of all sizes
            packed[resolution] = pipeline(copy.deepcopy(results))
            after = after or random_state()
        set_random_state(after or before)
        if any(result is None for result in packed.values()):
            return None
        full = packed.pop(self.resolution[0])
        full['data_samples'].set_field(packed, CARRIED, dtype=dict)
        return full

    def __repr__(self) -> str:
        return f'{type(self).__name__}(resolution={self.resolution})'
