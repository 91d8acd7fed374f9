# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Object detection and instance segmentation with mmdet."""

from typing import Any, Dict, FrozenSet, List, Optional, Sequence, Tuple

import torch
from mmcv.image.geometric import rescale_size
from mmdet.models.detectors import MaskFormer, SingleStageDetector
from mmdet.models.detectors.single_stage_instance_seg import (
    SingleStageInstanceSegmentor,
)
from mmdet.structures import DetDataSample
from mmengine.model import stack_batch
from torch import Tensor, nn

from ...errors import ConfigError
from ...slimmable.convert import stock_name
from ...subnet import Size, Subnet, SubnetSpace
from ..interpolation import resize_images
from .base import Task
from .rescaling import Rescaling
from .samples import Batch, Samples

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
    input_axes = {0: 'batch', 2: 'height', 3: 'width'}

    def __init__(self, space: SubnetSpace) -> None:
        super().__init__(space)
        # Long edges seen in the stage that runs, one at most.
        self._stage = ''
        self._edges: FrozenSet[int] = frozenset()

    @classmethod
    def check_model(cls, model: nn.Module) -> None:
        """Refuse detectors of actions, which are over clips.

        Raises:
            ConfigError: Names the model.
        """
        backbone = model.backbone
        convolutions = (nn.Conv2d, nn.Conv3d)
        first = next(
            (m for m in backbone.modules() if isinstance(m, convolutions)),
            None,
        )
        if isinstance(first, nn.Conv3d):
            raise ConfigError(
                f'{stock_name(model)} over clips ({stock_name(backbone)}) '
                'detects actions (AVA), which is not supported: use a '
                'detector of images, or a Recognizer3D for whole clips'
            )

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

    def check_channels(self, model: nn.Module, inputs: Tensor) -> None:
        """Refuse a detector that cannot pad its batches, as well.

        Models around a detector may have a preprocessor in its place.
        """
        if not hasattr(model.data_preprocessor, 'pad_size_divisor'):
            raise ConfigError(
                f'{stock_name(model)} has no data_preprocessor that pads '
                'images: give the detector, too, that of the model around it'
            )
        super().check_channels(model, inputs)

    def check_full(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse images that are not of the full resolution."""
        del model, inputs
        self._check_long_edges('training', data_samples)

    def check_test(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse images as in training; test pipelines may have another L."""
        del model, inputs
        self._check_long_edges('testing', data_samples)

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

    def _check_long_edges(self, stage: str, data_samples: Samples) -> None:
        """Refuse two long edges in a stage: no single ``L`` explains them."""
        full = self.space.full.resolution
        shown = map(self._long_edge, data_samples)
        edges = {edge for edge in shown if edge is not None}
        if stage == self._stage:
            edges |= self._edges
        if len(edges) > 1:
            raise ConfigError(
                f'the pipeline delivers images with long edges {sorted(edges)}'
                f' and short edges below {full}: Resize(scale=(L, {full}), '
                'keep_ratio=True) with one L must deliver the full '
                'resolution, mutual.resolution[0]'
            )
        self._stage, self._edges = stage, frozenset(edges)

    def interpolate(
        self,
        model: nn.Module,
        inputs: Tensor,
        data_samples: Samples,
        resolution: int,
        with_truth: bool,
    ) -> Batch:
        """Return images as the pipeline makes them at the resolution."""
        preprocessor = model.data_preprocessor
        divisor = preprocessor.pad_size_divisor
        sizes = [self._size(sample, resolution) for sample in data_samples]
        images = []
        for image, sample, size in zip(inputs, data_samples, sizes):
            h, w = sample.img_shape[:2]
            images.append(resize_images(image[None, :, :h, :w], size)[0])
        batch = stack_batch(images, divisor, preprocessor.pad_value)
        before, after = tuple(inputs.shape[2:]), tuple(batch.shape[2:])
        for sample, size in zip(data_samples, sizes):
            old = tuple(sample.img_shape[:2])
            Rescaling(old, size, before, after).sample(sample, with_truth)
            sample.set_metainfo(
                dict(pad_shape=_padded(size, divisor), batch_input_shape=after)
            )
        if with_truth and preprocessor.pad_mask:
            preprocessor.pad_gt_masks(data_samples)
        if with_truth and preprocessor.pad_seg:
            preprocessor.pad_gt_sem_seg(data_samples)
        return batch, list(data_samples)

    def _size(self, sample: DetDataSample, resolution: int) -> Size:
        scale = (self._long_edge(sample) or _UNBOUND, resolution)
        return _rescaled(sample.ori_shape, scale)

    def forward_batch_norms(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Run backbone and neck; the heads too if they have batch norms."""
        with torch.no_grad():
            if not self.batch_norms_outside(model, ('backbone', 'neck')):
                model.extract_feat(inputs)
                return
            samples = [_without_truth(sample) for sample in data_samples]
            if _masks_follow_boxes(model):
                model.predict(inputs, samples, rescale=False)
            else:
                model(inputs, samples, mode='tensor')

    def forward_cost(self, model: nn.Module, inputs: Tensor) -> Any:
        """Backbone and neck: heads cost the same at every width."""
        return model.extract_feat(inputs)

    def forward_sliced(self, model: nn.Module, inputs: Tensor) -> Any:
        """Backbone and neck, and heads that take the maps alone.

        A neck may hand on the backbone's maps as they are.
        """
        if _is_one_stage(model) and _runs_on_shapes(model):
            return _run_on_images(model, inputs)
        maps = model.extract_feat(inputs)
        if isinstance(model, MaskFormer):
            return _enter_decoder(model.panoptic_head.pixel_decoder, maps)
        return maps

    def check_static(self, model: nn.Module) -> None:
        """Refuse heads without a neck that :meth:`forward_sliced` leaves out.

        Raises:
            ConfigError: Names the model.
        """
        if model.with_neck or isinstance(model, MaskFormer):
            return
        if not _is_one_stage(model):
            raise ConfigError(
                f'{stock_name(model)} without a neck: its heads take the '
                "backbone's channels after proposals; only a detector of "
                'one stage, or one with a neck, has a static form'
            )
        if not _runs_on_shapes(model):
            raise ConfigError(
                f'{stock_name(model)} without a neck: its heads run operators '
                'of mmcv (mmcv.ops), which need data; it has a static form '
                'only with a neck'
            )

    def forward_whole(self, model: nn.Module, inputs: Tensor) -> Any:
        """Run detectors whose heads take the maps alone, else nothing."""
        if not _is_one_stage(model) or not _runs_on_shapes(model):
            return None
        return _run_on_images(model, inputs)

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
        return (1, self.input_channels(model), *_padded(size, divisor))

    def describe_inputs(self, model: nn.Module) -> Dict[str, Any]:
        """How images are padded."""
        names = ('pad_size_divisor', 'pad_value')
        return {n: getattr(model.data_preprocessor, n) for n in names}


def _without_truth(sample: DetDataSample) -> DetDataSample:
    """A sample of the metainfo, and of the proposals where they are given."""
    new = DetDataSample(metainfo=sample.metainfo)
    if 'proposals' in sample:
        new.proposals = sample.proposals
    return new


def _is_one_stage(model: nn.Module) -> bool:
    """Whether the heads take the maps alone, not what is found in them."""
    dense = (SingleStageDetector, SingleStageInstanceSegmentor)
    return isinstance(model, dense) and not _masks_follow_boxes(model)


def _masks_follow_boxes(model: nn.Module) -> bool:
    """Whether masks are made of boxes that a head finds before (CondInst).

    The stock plain forward gets those boxes from the labels.
    """
    return isinstance(model, SingleStageInstanceSegmentor) and model.with_bbox


def _runs_on_shapes(model: nn.Module) -> bool:
    """Whether no head has an operator of mmcv, as deformable attention.

    Those need data to run, and their multiply-accumulates are not counted.
    """
    return not any(
        type(layer).__module__.startswith('mmcv.ops')
        for name, child in model.named_children()
        if name not in ('backbone', 'neck')
        for layer in child.modules()
    )


def _run_on_images(model: nn.Module, inputs: Tensor) -> Any:
    """Run all of a detector, on images that fill the batch."""
    shape = tuple(inputs.shape[2:])
    # MaskFormers ask the samples which part of an image is padding.
    names = ('ori_shape', 'img_shape', 'pad_shape', 'batch_input_shape')
    meta = dict(dict.fromkeys(names, shape), scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=meta) for _ in inputs]
    return model(inputs, samples, mode='tensor')


def _enter_decoder(decoder: nn.Module, maps: Sequence[Tensor]) -> List[Tensor]:
    """Run the layers of a pixel decoder that take the backbone's maps."""
    return [
        *(conv(x) for conv, x in zip(decoder.input_convs, maps[::-1])),
        *(conv(x) for conv, x in zip(decoder.lateral_convs, maps)),
    ]


def _padded(size: Size, divisor: int) -> Size:
    h, w = (-(-side // divisor) * divisor for side in size)
    return h, w


def _rescaled(shape: Size, scale: Tuple[int, int]) -> Size:
    """Height and width that ``Resize(scale, keep_ratio=True)`` gives."""
    w, h = rescale_size((shape[1], shape[0]), scale)
    return h, w
