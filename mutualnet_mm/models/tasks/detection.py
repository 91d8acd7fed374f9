# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Object detection and instance segmentation with mmdet."""

from typing import Any, Optional, Set, Tuple, Union

import torch
import torch.nn.functional as F
from mmcv.image.geometric import rescale_size
from mmdet.models.detectors import SingleStageDetector
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.model import stack_batch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from ...errors import ConfigError
from ...slimmable.convert import stock_name
from ...subnet import Size, Subnet, SubnetSpace
from .base import Batch, Samples, Task

_UNBOUND = 10**9  # a long edge that no image reaches
_COMMON_SHAPE = (480, 640)


class DetectionTask(Task):
    """Every subnet learns from the ground truth, rescaled with the image.

    Resolution ``r`` means what ``Resize(scale=(L, r), keep_ratio=True)``
    means, image by image from its original size. ``L`` is the long edge of
    the config's own pipeline and need not be given: it shows in the images
    whose long edge binds, and the others do not depend on it.
    """

    name = 'detection'
    cost_includes_head = False

    def __init__(self, space: SubnetSpace) -> None:
        super().__init__(space)
        self._edges: Set[int] = set()  # long edges seen so far, one at most

    def supervisions(self, model: nn.Module) -> Tuple[str, ...]:
        """The ground truth: the paper gives no other."""
        del model
        return ('label',)

    def check_truth(self, data_samples: Samples) -> None:
        """Refuse a training batch without ground truth."""
        if not data_samples or any(
            'gt_instances' not in sample for sample in data_samples
        ):
            raise ConfigError(
                'a training batch has no ground truth (gt_instances): the '
                'train pipeline needs LoadAnnotations and PackDetInputs'
            )

    def check_full(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse images that are not of the full resolution."""
        del model, inputs
        self._agree(
            {
                edge
                for edge in map(self._long_edge, data_samples)
                if edge is not None
            }
        )

    def _long_edge(self, sample: DetDataSample) -> Optional[int]:
        """The pipeline's ``L`` where the image shows it, else None."""
        full = self.space.full.resolution
        h, w = sample.img_shape[:2]
        for edge in (None, max(h, w)):
            scale = (edge or _UNBOUND, full)
            if scale[0] >= full and (h, w) == _rescaled(
                sample.ori_shape, scale
            ):
                return edge
        ori_h, ori_w = sample.ori_shape[:2]
        raise ConfigError(
            f'the pipeline made {h} x {w} of an image of {ori_h} x {ori_w}, '
            f'but the full resolution is {full}: it needs Resize(scale=(L, '
            f'{full}), keep_ratio=True) and no crop, or another '
            'mutual.resolution[0]'
        )

    def _agree(self, edges: Set[int]) -> None:
        """Refuse two long edges: no single ``L`` explains them."""
        full = self.space.full.resolution
        edges |= self._edges
        if len(edges) > 1:
            raise ConfigError(
                f'the pipeline delivers images with long edges {sorted(edges)}'
                f' and short edges below {full}: Resize(scale=(L, {full}), '
                'keep_ratio=True) with one L must deliver the full '
                'resolution, mutual.resolution[0]'
            )
        self._edges = edges

    def _interpolate(
        self,
        model: nn.Module,
        inputs: Tensor,
        data_samples: Samples,
        resolution: int,
        with_truth: bool,
    ) -> Batch:
        preprocessor = model.data_preprocessor
        images, samples = [], []
        for image, sample in zip(inputs, data_samples):
            edge = self._long_edge(sample)
            size = _rescaled(sample.ori_shape, (edge or _UNBOUND, resolution))
            h, w = sample.img_shape[:2]
            images.append(
                F.interpolate(
                    image[None, :, :h, :w],
                    size,
                    mode='bilinear',
                    antialias=True,
                )[0]
            )
            samples.append(rescale_sample(sample, size, with_truth))
        divisor = preprocessor.pad_size_divisor
        batch = stack_batch(images, divisor, preprocessor.pad_value)
        for image, sample in zip(images, samples):
            sample.set_metainfo(
                dict(
                    pad_shape=tuple(
                        -(-side // divisor) * divisor
                        for side in image.shape[1:]
                    ),
                    batch_input_shape=tuple(batch.shape[2:]),
                )
            )
        if with_truth and preprocessor.pad_mask:
            preprocessor.pad_gt_masks(samples)
        if with_truth and preprocessor.pad_seg:
            preprocessor.pad_gt_sem_seg(samples)
        return batch, samples

    def features(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Run backbone and neck; the heads too if they have batch norms."""
        with torch.no_grad():
            if self.batch_norms_outside(model, ('backbone', 'neck')):
                model(inputs, data_samples, mode='tensor')
            else:
                model.extract_feat(inputs)

    def forward_cost(self, model: nn.Module, inputs: Tensor) -> Any:
        """Backbone and neck: heads cost the same at every width."""
        return model.extract_feat(inputs)

    def forward_sliced(self, model: nn.Module, inputs: Tensor) -> Any:
        """Backbone and neck, and the heads of one stage."""
        if isinstance(model, SingleStageDetector):
            return model(inputs, mode='tensor')
        return model.extract_feat(inputs)

    def check_static(self, model: nn.Module) -> None:
        """Refuse heads behind proposals that take the backbone's maps.

        Raises:
            ConfigError: Names the model.
        """
        if not model.with_neck and not isinstance(model, SingleStageDetector):
            raise ConfigError(
                f'{stock_name(model)} without a neck: its heads take the '
                "backbone's channels behind proposals; only a detector of "
                'one stage, or one with a neck, has a static form'
            )

    def input_shape(
        self, model: nn.Module, subnet: Subnet, image_shape: Optional[Size]
    ) -> Tuple[int, ...]:
        """Padded shape of an image of ``image_shape`` (height, width).

        Short edges bind here: the pipeline's ``L`` is not known. Defaults to
        480 x 640 pixels, COCO's most common size.
        """
        divisor = model.data_preprocessor.pad_size_divisor
        shape = image_shape or _COMMON_SHAPE
        size = _rescaled(shape, (_UNBOUND, subnet.resolution))
        return (1, 3, *(-(-side // divisor) * divisor for side in size))


def _rescaled(shape: Size, scale: Tuple[int, int]) -> Size:
    """Height and width that ``Resize(scale, keep_ratio=True)`` gives."""
    w, h = rescale_size((shape[1], shape[0]), scale)
    return h, w


def rescale_sample(
    sample: DetDataSample, size: Size, with_truth: bool
) -> DetDataSample:
    """Copy ``sample`` so that it fits an image of another size.

    Args:
        sample (DetDataSample): At ``img_shape``; masks may be padded beyond.
        size (tuple[int]): New height and width of the image.
        with_truth (bool): Whether boxes, masks and segmentation maps are
            rescaled. In testing they must not be: test pipelines load them
            in the coordinates of the original image.

    Returns:
        DetDataSample: ``img_shape`` and ``scale_factor`` fit the new size.
    """
    h, w = sample.img_shape[:2]
    factor = (size[1] / w, size[0] / h)
    new = sample.new()
    ori_h, ori_w = sample.ori_shape
    new.set_metainfo(
        dict(img_shape=size, scale_factor=(size[1] / ori_w, size[0] / ori_h))
    )
    if not with_truth:
        return new
    for name in ('gt_instances', 'ignored_instances', 'proposals'):
        if name in sample:
            new.set_data(
                {
                    name: _rescale_instances(
                        sample.get(name), (h, w), size, factor
                    )
                }
            )
    if 'gt_sem_seg' in sample:
        seg = sample.gt_sem_seg.sem_seg[..., :h, :w]
        seg = F.interpolate(seg[None].float(), size, mode='nearest')[0]
        new.gt_sem_seg = PixelData(
            sem_seg=seg.to(sample.gt_sem_seg.sem_seg.dtype)
        )
    return new


def _rescale_instances(
    instances: InstanceData, old: Size, size: Size, factor: Tuple[float, float]
) -> InstanceData:
    new = instances.new()
    if 'bboxes' in new:
        if isinstance(new.bboxes, BaseBoxes):
            new.bboxes = new.bboxes.clone()
            new.bboxes.rescale_(factor)
        else:
            new.bboxes = new.bboxes * new.bboxes.new_tensor(factor * 2)
    if 'masks' in new:
        new.masks = _rescale_masks(new.masks, old, size)
    return new


def _rescale_masks(
    masks: Union[BitmapMasks, PolygonMasks], old: Size, size: Size
) -> Union[BitmapMasks, PolygonMasks]:
    if isinstance(masks, BitmapMasks):
        unpadded = BitmapMasks(masks.masks[:, : old[0], : old[1]], *old)
    else:
        unpadded = PolygonMasks(masks.masks, *old)
    return unpadded.resize(size)
