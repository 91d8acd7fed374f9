# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The ground truth of mmdet, rescaled with its image."""

import copy
from typing import Any, Optional, Union

import numpy as np
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from ...errors import ConfigError
from ...subnet import Size


class Rescaling:
    """From an image's size to another one.

    Args:
        old (tuple[int]): Height and width of the image, without padding.
        new (tuple[int]): Those that it gets.
        old_batch (tuple[int]): Height and width of its batch, with padding.
        new_batch (tuple[int]): Those of the new one.
    """

    def __init__(
        self, old: Size, new: Size, old_batch: Size, new_batch: Size
    ) -> None:
        self.old, self.new = old, new
        self.old_batch, self.new_batch = old_batch, new_batch
        self.factor = (new[1] / old[1], new[0] / old[0])

    def sample(self, sample: DetDataSample, with_truth: bool) -> None:
        """Make a sample fit the new size.

        Its ``scale_factor`` is multiplied by what happened: after crops,
        flips or mosaics it does not follow from the original shape.

        Args:
            sample (DetDataSample): Its sizes are set, and the fields of the
                ground truth replaced. Masks and segmentation maps are not
                padded. Instances whose boxes are a pixel or less wide or high
                are dropped, as the stock ``FilterAnnotations`` drops them.
            with_truth (bool): Whether the ground truth is rescaled. In testing
                it must not be: test pipelines load it in the coordinates of
                the original image. Given proposals always are.

        Raises:
            ConfigError: Names a field that cannot be rescaled.
        """
        for name, value in list(sample.items()):
            if name == 'proposals' and not with_truth:
                sample.proposals = copy.deepcopy(value)  # shared until now
                self._instances(name, sample.proposals)
            elif with_truth:
                if isinstance(value, InstanceData):
                    self._instances(name, value)
                    if name in ('gt_instances', 'ignored_instances'):
                        setattr(sample, name, _visible(value))
                elif isinstance(value, PixelData):
                    setattr(sample, name, self._maps(name, value))
                elif getattr(value, 'ndim', 0) > 1:
                    raise _refusal(name, value)
        (x, y), (w, h) = self.factor, sample.get('scale_factor', (1.0, 1.0))
        sample.set_metainfo(
            dict(img_shape=self.new, scale_factor=(w * x, h * y))
        )
        if 'border' in sample:  # rows, then columns, of the image in a canvas
            border = sample.border * np.array((y, y, x, x))
            sample.set_metainfo(dict(border=border.astype(np.float32)))

    def _instances(self, place: str, instances: InstanceData) -> None:
        for name, value in list(instances.items()):
            if isinstance(value, BaseBoxes):
                value.rescale_(self.factor)  # in place
            elif name == 'bboxes':
                factor = value.new_tensor(self.factor * 2)
                instances.bboxes = value * factor
            elif isinstance(value, (BitmapMasks, PolygonMasks)):
                setattr(instances, name, self._masks(value))
            elif getattr(value, 'ndim', 0) > 1:
                # One number an instance is a class or a score, but several
                # may be places in the image.
                stride = self._stride(value)
                if stride is None:
                    raise _refusal(f'{place}.{name}', value)
                setattr(instances, name, self._strided(value, stride))

    def _masks(
        self, masks: Union[BitmapMasks, PolygonMasks]
    ) -> Union[BitmapMasks, PolygonMasks]:
        h, w = self.old
        if not self._is_of_image((masks.height, masks.width)):
            raise ConfigError(
                f'the ground truth has masks of {masks.height} x '
                f'{masks.width} for an image of {h} x {w}: a step or a batch '
                'augmentation (BatchSyncRandomResize) resized the image '
                'without its masks, leave it out'
            )
        if isinstance(masks, BitmapMasks):
            unpadded = BitmapMasks(masks.masks[:, :h, :w], h, w)
        else:
            unpadded = PolygonMasks(masks.masks, h, w)
        return unpadded.resize(self.new)

    def _is_of_image(self, size: Size) -> bool:
        """Whether masks or maps have the image's size, padded or not."""
        return all(
            side <= found <= padded
            for side, found, padded in zip(self.old, size, self.old_batch)
        )

    def _maps(self, place: str, maps: PixelData) -> PixelData:
        """Segmentation maps of the image, padded or not."""
        found = {}
        for name, value in maps.items():
            if not isinstance(value, Tensor) or not self._is_of_image(
                (value.shape[-2], value.shape[-1])
            ):
                raise _refusal(f'{place}.{name}', value)
            inside = value[..., : self.old[0], : self.old[1]]
            found[name] = _nearest(inside, self.new)
        return PixelData(metainfo=maps.metainfo, **found)

    def _stride(self, value: Any) -> Optional[int]:
        """Pixels for each place of a map of the padded batch; else None."""
        if not isinstance(value, Tensor) or value.dim() < 3:
            return None
        places, rest = divmod(self.old_batch[0], value.shape[-2] or 1)
        whole = tuple(side * places for side in value.shape[-2:])
        return places if rest == 0 and whole == self.old_batch else None

    def _strided(self, value: Tensor, stride: int) -> Tensor:
        """A map for each instance, such as the ``pairwise_masks`` of BoxInst.

        Only what shows the image is resized; the padding is 0, as there.
        """
        h, w = (-(-side // stride) for side in self.old)
        new_h, new_w = (-(-side // stride) for side in self.new)
        padded = tuple(-(-side // stride) for side in self.new_batch)
        resized = _nearest(value[..., :h, :w], (new_h, new_w))
        margin = (0, padded[1] - new_w, 0, padded[0] - new_h)
        return F.pad(resized, margin)


def _visible(instances: InstanceData) -> InstanceData:
    """Those whose boxes are more than a pixel wide and high."""
    boxes = instances.get('bboxes')
    if boxes is None or len(boxes) == 0:
        return instances
    if isinstance(boxes, BaseBoxes):
        sides = boxes.widths, boxes.heights
    else:
        sides = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    keep = (sides[0] > 1) & (sides[1] > 1)
    return instances if keep.all() else instances[keep]


def _nearest(maps: Tensor, size: Size) -> Tensor:
    """Resize ``(..., height, width)``, taking no values but those there."""
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    if not flat.numel():
        return maps.new_zeros((*maps.shape[:-2], *size))
    resized = F.interpolate(flat.float(), size, mode='nearest')
    return resized.view(*maps.shape[:-2], *size).to(maps.dtype)


def _refusal(name: str, value: Any) -> ConfigError:
    shape = tuple(getattr(value, 'shape', ()))
    return ConfigError(
        f'the ground truth has a field {name}, a {type(value).__name__} of '
        f'shape {shape}, which cannot be brought to another resolution: leave '
        'it out of the train pipeline, or list a single mutual.resolution'
    )
