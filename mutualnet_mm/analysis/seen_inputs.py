# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What each subnet sees of the samples of a config."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch import Tensor

from ..config.pipelines import loaders_of, pipeline_steps, stage_datasets
from ..engine.hooks import build_dataset, calibration_batches
from ..errors import ConfigError
from ..models import MutualLearningMixin
from ..models.clips import frame_indices
from ..subnet import Subnet
from .pixels import input_pixels


@dataclass
class Objects:
    """The ground truth inside of an input, in its pixels.

    Attributes:
        boxes (np.ndarray): (N, 4), left, top, right and bottom edge.
        names (list[str]): Of the class of each; empty where they have none.
        masks (np.ndarray, optional): (N, H, W), as large as the input or
            smaller by its padding.
    """

    boxes: np.ndarray
    names: List[str]
    masks: Optional[np.ndarray] = None


@dataclass
class View:
    """What one subnet sees of one sample.

    Attributes:
        subnet (Subnet): It.
        frames (np.ndarray): (T, H, W, 3), RGB of uint8, with padding; one
            frame of an image.
        numbers (list[int]): Which frames of the delivered clip they are.
        size (tuple[int]): Height and width without the padding.
        objects (Objects, optional): None where there are no boxes.
    """

    subnet: Subnet
    frames: np.ndarray
    numbers: List[int]
    size: Tuple[int, int]
    objects: Optional[Objects] = None


@dataclass
class SeenSample:
    """A sample, as several subnets see it.

    Attributes:
        name (str): Its file, without folder and suffix; may be empty.
        label (str): Its class or classes; may be empty.
        views (list[View]): One for each subnet.
    """

    name: str
    label: str
    views: List[View] = field(default_factory=list)


def default_subnets(model: MutualLearningMixin) -> List[Subnet]:
    """A subnet for each trained resolution, the full one first.

    They are of full width, which inputs do not depend on. Of videos, each has
    fewer frames than the one before, as far as there are any.

    Args:
        model (MutualLearningMixin): Whose settings count.
    """
    space = model.space
    sizes = sorted(space.resolutions, reverse=True)
    frames: Sequence[Optional[int]] = [None]
    if space.frames is not None:
        frames = sorted(space.frames, reverse=True)
    number = max(len(sizes), len(frames))
    return [
        Subnet(
            space.max_width,
            sizes[min(i, len(sizes) - 1)],
            frames[min(i, len(frames) - 1)],
        )
        for i in range(number)
    ]


def seen_samples(
    cfg: Config,
    model: MutualLearningMixin,
    subnets: Sequence[Union[str, Subnet]],
    phase: str = 'train',
    number: int = 10,
) -> Iterator[SeenSample]:
    """Yield the first samples of a data loader, as subnets see them.

    They are loaded, collated, preprocessed and brought to each subnet's size
    by the code that trains and tests; nothing else is computed. In training
    the ground truth is that of each subnet's loss. In testing it is the one
    that the pipeline loads, in the coordinates of the original image, brought
    to the input by the sample's ``scale_factor``.

    Args:
        cfg (Config): As :func:`~.config.load_config` returns it.
        model (MutualLearningMixin): As built from it.
        subnets (Sequence): Such as ``['1.0x-224']``.
        phase (str): ``'train'``, ``'val'`` or ``'test'``: whose data loader.
            Samples are shuffled as it says, with a fixed seed. Defaults to
            ``'train'``.
        number (int): How many samples at most. Defaults to 10.

    Raises:
        ConfigError: If there is no such data loader, or if it does not
            deliver what the subnets can be trained or tested on.
    """
    chosen = model.space.choose(subnets)
    loaders = [settings for _, settings in loaders_of(cfg, phase)]
    if len(loaders) != 1:
        raise ConfigError(
            f'the config has {"several" if loaders else "no"} '
            f'{phase}_dataloader: one is browsed, see --phase'
        )
    (loader,) = loaders
    hub = MessageHub.get_current_instance()
    if 'iter' not in hub.runtime_info:  # batch augmentations ask for it
        hub.update_info('iter', 0)
    dataset = build_dataset(loader['dataset'])
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    order, left = _channel_order(cfg, phase), number
    is_training = phase == 'train'
    model.train(is_training)
    for batch in calibration_batches(dict(loader, dataset=dataset), number):
        inputs, samples = _prepared(model, batch, is_training)
        shown = [
            SeenSample(_name(sample), _label(sample, classes))
            for sample in samples[:left]
        ]
        for subnet in chosen:
            resized, own = model.task.resize(
                model, inputs, samples, subnet, with_truth=is_training
            )
            delivered = _number_of_frames(model, inputs)
            resized = _slow_inputs(model, resized, subnet)
            for i, one in enumerate(shown):
                pixels = _pixels(model, resized[i], order)
                view = View(
                    subnet,
                    pixels,
                    _frame_numbers(model, delivered, len(pixels)),
                    _size(own[i], pixels),
                    _objects(own[i], is_training, classes),
                )
                one.views.append(view)
        yield from shown
        left -= len(shown)
        if left <= 0:
            return


def _prepared(
    model: MutualLearningMixin, batch: Any, is_training: bool
) -> Tuple[Tensor, List[Any]]:
    if isinstance(batch['inputs'], dict):
        raise ConfigError(
            f'batches have branches ({", ".join(batch["inputs"])}): browse a '
            'config of supervised training'
        )
    data = model.data_preprocessor(batch, is_training)
    inputs, samples = data['inputs'], data['data_samples']
    task = model.task
    task.check_channels(model, inputs)
    if is_training:
        task.check_truth(model, samples)
        task.check_full(model, inputs, samples)
    else:
        task.check_test(model, inputs, samples)
    return inputs, samples


def _slow_inputs(model: Any, inputs: Tensor, subnet: Subnet) -> Tensor:
    """What a network of two branches makes of whole clips by itself."""
    if not getattr(model.backbone, 'resizes_inside', False):
        return inputs
    clips = inputs.flatten(0, -5)
    with torch.no_grad(), model.activate(subnet):
        slow = model.backbone.slow_inputs(clips)
    return slow.unflatten(0, inputs.shape[:-4])


def _number_of_frames(model: Any, inputs: Tensor) -> int:
    if model.task.channel_axis == -4:
        return inputs.shape[-3]
    return inputs.shape[1] if inputs.dim() == 5 else 1


def _frame_numbers(model: Any, delivered: int, shown: int) -> List[int]:
    stride = getattr(model.backbone, 'frame_stride', 1)
    return [i * stride for i in frame_indices(delivered // stride, shown)]


def _pixels(model: Any, one: Tensor, order: Optional[str]) -> np.ndarray:
    """Frames of one sample, (T, H, W, 3); of a video's first view."""
    if model.task.channel_axis == -4:
        one = one.flatten(0, -5)[0] if one.dim() > 4 else one
        one = one.movedim(1, 0)
    elif one.dim() == 3:
        one = one[None]
    if one.shape[-3] == 1:  # grey
        one = one.expand(-1, 3, -1, -1)
    return input_pixels(model, one, order)


def _size(sample: Any, pixels: np.ndarray) -> Tuple[int, int]:
    """Height and width without padding, where the sample follows the size.

    That of a whole image or clip, which has nothing to be rescaled, may still
    say the full size.
    """
    height, width = pixels.shape[1:3]
    inside = [round(side) for side in sample.get('img_shape', ())[:2]]
    if len(inside) == 2 and inside[0] <= height and inside[1] <= width:
        return inside[0], inside[1]
    return height, width


def _channel_order(cfg: Config, phase: str) -> str:
    """Images are decoded to BGR; videos, and arrays of data sets, are RGB."""
    for place, dataset in stage_datasets(cfg, (phase,)):
        for step in pipeline_steps(place, dataset):
            if step.kind.startswith('LoadImage'):
                return 'BGR'
    return 'RGB'


def _name(sample: Any) -> str:
    for key in ('img_path', 'filename', 'frame_dir', 'img_key'):
        if sample.get(key):
            return Path(str(sample.get(key)).replace(',', '_')).stem
    return ''


def _label(sample: Any, classes: Optional[Sequence[str]]) -> str:
    """Classes of a whole sample, with their shares if they are mixed."""
    shares = sample.get('gt_score')
    if isinstance(shares, Tensor) and shares.dim() == 1:
        shares = shares.cpu()
        found = shares.argsort(descending=True)
        return ', '.join(
            f'{_class(int(i), classes)}'
            + ('' if shares[i] == 1 else f' {float(shares[i]):.2f}')
            for i in found[shares[found] > 0][:3]
        )
    labels = sample.get('gt_label')
    if not isinstance(labels, Tensor):
        return ''
    return ', '.join(_class(int(i), classes) for i in labels.flatten())


def _class(label: int, classes: Optional[Sequence[str]]) -> str:
    named = classes and 0 <= label < len(classes)
    return str(classes[label]) if named else f'class {label}'  # type: ignore


def _objects(
    sample: Any, is_training: bool, classes: Optional[Sequence[str]]
) -> Optional[Objects]:
    """Boxes and masks in the pixels of the input that a sample is of."""
    instances = sample.get('gt_instances')
    factor = (1.0, 1.0)
    if not is_training:
        # Given boxes come with their clips, truth with the original image.
        if 'proposals' in sample:
            instances = sample.get('proposals')
        else:
            factor = tuple(sample.get('scale_factor', factor))[:2]
    boxes = None if instances is None else instances.get('bboxes')
    if boxes is None:
        return None
    boxes = getattr(boxes, 'tensor', boxes)
    boxes = torch.as_tensor(boxes).detach().cpu().double().numpy()
    masks = instances.get('masks')
    if masks is not None and factor != (1.0, 1.0):
        masks = masks.resize(
            (round(masks.height * factor[1]), round(masks.width * factor[0]))
        )
    labels = instances.get('labels')
    names = [] if labels is None else [_names(one, classes) for one in labels]
    return Objects(
        boxes.reshape(-1, 4) * (*factor, *factor),
        names,
        None if masks is None else masks.to_ndarray().astype(bool),
    )


def _names(label: Tensor, classes: Optional[Sequence[str]]) -> str:
    """Of a single class, or of several at a time (AVA)."""
    if label.dim() == 0:
        return _class(int(label), classes)
    return ', '.join(_class(int(i), classes) for i in label.nonzero())
