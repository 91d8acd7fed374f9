# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A batch of random images or clips, with ground truth of each task."""

from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import Tensor

from ..errors import UsageError
from ..models import MutualLearningMixin

_NUMBER = 2  # batch norms of pooled features need more than one
_Made = Tuple[List[Tensor], List[Any]]


def random_batch(model: MutualLearningMixin) -> Dict[str, Any]:
    """Make a batch as a data loader gives it, of the full resolution.

    Args:
        model (MutualLearningMixin): Whose inputs and truth to make.

    Raises:
        UsageError: If its task is none of this package's.
    """
    make = _MAKERS.get(model.task.name)
    if make is None:
        raise UsageError(
            f'no random batch of task {model.task.name!r} can be made: prove '
            'the config by training it'
        )
    inputs, samples = make(model)
    return dict(inputs=inputs, data_samples=samples)


def _pixels(*shape: int) -> List[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        for _ in range(_NUMBER)
    ]


def _image_shape(model: MutualLearningMixin) -> Tuple[int, int, int]:
    side = model.space.full.resolution
    return model.task.input_channels(model), side, side


def _classification(model: MutualLearningMixin) -> _Made:
    from mmpretrain.structures import DataSample

    images = _pixels(*_image_shape(model))
    return images, [DataSample().set_gt_label([0]) for _ in images]


def _detection(model: MutualLearningMixin) -> _Made:
    import numpy as np
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    channels, h, w = _image_shape(model)
    images, samples = _pixels(channels, h, w), []
    # One large object, and one that is in the corner of it.
    boxes = torch.tensor([[0.1, 0.1, 0.9, 0.8], [0.2, 0.2, 0.5, 0.5]])
    boxes = boxes * torch.tensor([w, h, w, h])
    for number, _ in enumerate(images):
        sample = DetDataSample(
            metainfo=dict(
                img_id=number,
                img_path=f'{number}.jpg',
                ori_shape=(h, w),
                img_shape=(h, w),
                scale_factor=(1.0, 1.0),
                flip=False,
                flip_direction=None,
            )
        )
        masks = np.zeros((len(boxes), h, w), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        sample.gt_instances = InstanceData(
            bboxes=boxes.clone(),
            labels=torch.zeros(len(boxes), dtype=torch.long),
            masks=BitmapMasks(masks, h, w),
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        if getattr(model.data_preprocessor, 'pad_seg', False):
            sample.gt_sem_seg = PixelData(
                sem_seg=torch.zeros((1, h, w), dtype=torch.long)
            )
        if getattr(model, 'with_rpn', True) is False:
            sample.proposals = InstanceData(
                bboxes=boxes.clone(), scores=torch.ones(len(boxes))
            )
        samples.append(sample)
    return images, samples


def _action(model: MutualLearningMixin) -> _Made:
    from mmaction.structures import ActionDataSample

    shape = model.task.input_shape(model, model.space.full, None)[1:]
    head = model.task.head(model)
    label: Any = 0
    if getattr(head, 'multi_class', False):
        label = torch.eye(head.num_classes)[0]
    clips = _pixels(*shape)
    return clips, [ActionDataSample().set_gt_label(label) for _ in clips]


def _action_detection(model: MutualLearningMixin) -> _Made:
    from mmaction.structures import ActionDataSample
    from mmengine.structures import InstanceData

    shape = model.task.input_shape(model, model.space.full, None)[1:]
    size = tuple(shape[-2:])
    box = torch.tensor([[0.1, 0.1, 0.7, 0.9]]) * size[0]
    labels = torch.zeros(1, model.roi_head.bbox_head.num_classes)
    labels[:, -1] = 1  # the first one is the background
    clips, samples = _pixels(*shape), []
    for _ in clips:
        sample = ActionDataSample(metainfo=dict(img_shape=size))
        sample.gt_instances = InstanceData(bboxes=box.clone(), labels=labels)
        sample.proposals = InstanceData(bboxes=box.clone())
        samples.append(sample)
    return clips, samples


_MAKERS: Dict[str, Callable[[MutualLearningMixin], _Made]] = {
    'classification': _classification,
    'detection': _detection,
    'action': _action,
    'action detection': _action_detection,
}
