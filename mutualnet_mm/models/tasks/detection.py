# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Object detection and instance segmentation with mmdet."""

from typing import Any, Dict, List, Optional, Sequence, Tuple, Type

import torch
import torch.nn.functional as F
from mmdet.models.detectors import MaskFormer, SingleStageDetector
from mmdet.models.detectors.single_stage_instance_seg import (
    SingleStageInstanceSegmentor,
)
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from ...errors import ConfigError
from ...slimmable.convert import stock_name
from ...subnet import COMMON_SHAPE, Size, Subnet
from ..interpolation import resize_images, scaled
from .base import Task
from .rescaling import Rescaling
from .samples import Batch, Samples


class DetectionTask(Task):
    """Every subnet learns from the ground truth, rescaled with the image.

    The full resolution is the short edge, or a side, that the test pipeline
    resizes images to. A subnet of resolution ``r`` sees what any pipeline
    delivers scaled by ``r`` over the full one: each image inside of its batch,
    and the batch with its padding.
    """

    name = 'detection'
    cost_includes_head = False
    input_axes = {0: 'batch', 2: 'height', 3: 'width'}

    @classmethod
    def for_model(cls, model: nn.Module) -> Type[Task]:
        """Return the task of AVA for a detector over clips."""
        convolutions = (nn.Conv2d, nn.Conv3d)
        first = next(
            (
                m
                for m in model.backbone.modules()
                if isinstance(m, convolutions)
            ),
            None,
        )
        if isinstance(first, nn.Conv3d):
            from .action_detection import ActionDetectionTask

            return ActionDetectionTask
        return cls

    def supervisions(self, model: nn.Module) -> Tuple[str, ...]:
        """The ground truth: the paper gives no other."""
        del model
        return ('label',)

    def map_maker(self, model: nn.Module) -> nn.Module:
        """The neck, or the backbone where there is none."""
        return model.neck if model.with_neck else model.backbone

    def check_truth(self, model: nn.Module, data_samples: Samples) -> None:
        """Refuse a training batch without ground truth."""
        del model
        if not data_samples or any(
            'gt_instances' not in sample for sample in data_samples
        ):
            raise ConfigError(
                'a training batch has no ground truth (gt_instances): the '
                'train pipeline needs LoadAnnotations and PackDetInputs'
            )

    def has_boxes(self, data_samples: Samples) -> bool:
        """Whether an image has an object, as the pipeline delivers it."""
        return any(len(sample.gt_instances) for sample in data_samples)

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
        """Refuse a batch whose samples do not say where its images are."""
        del model
        height, width = inputs.shape[2:]
        for sample in data_samples:
            h, w = sample.get('img_shape', (0, 0))[:2]
            if not (0 < h <= height and 0 < w <= width):
                raise ConfigError(
                    f'a batch of {height} x {width} pixels has an image of '
                    f'img_shape={sample.get("img_shape")}: PackDetInputs must '
                    'pack img_shape (meta_keys), and the steps before it '
                    'must keep it up to date'
                )

    def check_test(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse images that were resized by an unknown factor, as well."""
        self.check_full(model, inputs, data_samples)
        for sample in data_samples:
            # An image with a border, in a canvas, is as large as it was.
            if 'scale_factor' in sample or 'border' in sample:
                continue
            original, size = sample.get('ori_shape'), sample.img_shape
            if original is None or _size(original) != _size(size):
                raise ConfigError(
                    f'an image of ori_shape={original} is tested at {size} '
                    'without a scale_factor, by which boxes are found in the '
                    'original image: PackDetInputs must pack ori_shape and '
                    'scale_factor (meta_keys)'
                )

    def interpolate(
        self,
        model: nn.Module,
        inputs: Tensor,
        data_samples: Samples,
        resolution: int,
        with_truth: bool,
    ) -> Batch:
        """Return the batch, and each image in it, scaled by one factor."""
        preprocessor = model.data_preprocessor
        before = _size(inputs.shape[2:])
        sizes = [_size(sample.img_shape) for sample in data_samples]
        new = [self._scaled(size, resolution) for size in sizes]
        after = self._canvas(model, before, sizes, resolution)
        batch = _resized(inputs, sizes, new, after, preprocessor.pad_value)
        for sample, old, size in zip(data_samples, sizes, new):
            Rescaling(old, size, before, after).sample(sample, with_truth)
            # Of a fixed size where the batch is padded to one.
            padded = _size(sample.get('pad_shape', old))
            padded = after if padded == before else self._padded(model, size)
            sample.set_metainfo(
                dict(pad_shape=padded, batch_input_shape=after)
            )
        if with_truth:
            _pad_truth(preprocessor, data_samples)
        return batch, list(data_samples)

    def _scaled(self, size: Size, resolution: int) -> Size:
        return scaled(size, resolution, self.space.full.resolution)

    @staticmethod
    def _padded(model: nn.Module, size: Size) -> Size:
        divisor = model.data_preprocessor.pad_size_divisor
        h, w = (-(-side // divisor) * divisor for side in size)
        return h, w

    def _canvas(
        self,
        model: nn.Module,
        canvas: Size,
        sizes: Sequence[Size],
        resolution: int,
    ) -> Size:
        """Height and width of the scaled batch.

        Padding that the images ask for is made anew, as small as it can be. A
        batch that is padded further, to a fixed size, is scaled as a whole.
        """
        least = max(h for h, _ in sizes), max(w for _, w in sizes)
        if self._padded(model, least) == canvas:
            canvas = least
        return self._padded(model, self._scaled(canvas, resolution))

    def forward_batch_norms(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Run backbone and neck; the heads too if they have batch norms."""
        with torch.no_grad():
            if not self.batch_norms_outside(model, ('backbone', 'neck')):
                model.extract_feat(inputs)
                return
            samples = [_of_image_alone(sample) for sample in data_samples]
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

    def runs_heads(self, model: nn.Module) -> bool:
        """Whether heads take the maps alone, not what is found in them."""
        is_dense = _is_one_stage(model) and _runs_on_shapes(model)
        return is_dense or isinstance(model, MaskFormer)

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
        """Padded shape of an image that the pipeline delivers at that size.

        Defaults to an image of 480 x 640 pixels, COCO's most common size,
        whose short edge is resized to the full resolution; where the data
        preprocessor pads nothing, to a square, which networks get whose
        pipeline pads (RTMDet).
        """
        full = self.space.full.resolution
        if image_shape is None:
            image_shape = scaled(COMMON_SHAPE, full, min(COMMON_SHAPE))
            if model.data_preprocessor.pad_size_divisor == 1:
                image_shape = full, full
        size = self._scaled(image_shape, subnet.resolution)
        return (1, self.input_channels(model), *self._padded(model, size))

    def describe_inputs(self, model: nn.Module) -> Dict[str, Any]:
        """How images are padded."""
        names = ('pad_size_divisor', 'pad_value')
        return {n: getattr(model.data_preprocessor, n) for n in names}


def _of_image_alone(sample: DetDataSample) -> DetDataSample:
    """A sample of the metainfo, and of the proposals where they are given.

    As of an image that was not flipped: nothing has to be turned back, which
    the stock plain forward of Cascade R-CNN's masks cannot.
    """
    new = DetDataSample(metainfo=dict(sample.metainfo, flip=False))
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


def _size(shape: Sequence[int]) -> Size:
    return int(shape[0]), int(shape[1])


def _resized(
    inputs: Tensor,
    sizes: Sequence[Size],
    new: Sequence[Size],
    canvas: Size,
    pad_value: float,
) -> Tensor:
    """Resize each image of a padded batch, into a batch of another size.

    Args:
        inputs (Tensor): ``(N, C, height, width)``.
        sizes (Sequence[tuple]): Height and width of each image.
        new (Sequence[tuple]): Those that it gets.
        canvas (tuple[int]): Height and width of the new batch.
        pad_value (float): What fills it beside the images.
    """
    if {*sizes} == {_size(inputs.shape[2:])}:
        (h, w), batch = new[0], resize_images(inputs, new[0])
        margin = (0, canvas[1] - w, 0, canvas[0] - h)
        return F.pad(batch, margin, value=pad_value)
    batch = inputs.new_full((*inputs.shape[:2], *canvas), pad_value)
    for i, ((h, w), (new_h, new_w)) in enumerate(zip(sizes, new)):
        # Each alone: the padding must not bleed into its edge.
        image = resize_images(inputs[i : i + 1, :, :h, :w], (new_h, new_w))
        batch[i, :, :new_h, :new_w] = image[0]
    return batch


def _pad_truth(preprocessor: nn.Module, data_samples: Samples) -> None:
    """Pad masks and maps if the preprocessor, or a step of it, pads them."""
    parts = [preprocessor, *(preprocessor.batch_augments or ())]
    if any(getattr(part, 'pad_mask', False) for part in parts):
        preprocessor.pad_gt_masks(data_samples)
    if any(getattr(part, 'pad_seg', False) for part in parts):
        preprocessor.pad_gt_sem_seg(data_samples)
