# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the pipelines of a config deliver: images, or views of clips."""

from dataclasses import dataclass, replace
from math import prod
from typing import Any, List, Optional, Sequence

from mmengine.config import Config
from mmengine.registry import init_default_scope

from ..errors import ConfigError
from ..subnet import COMMON_SHAPE, Size
from .blank import delivered_shape
from .pipelines import Step, both_sides, pipeline_steps, stage_datasets
from .sized_steps import Sizing, sizings

# Crops that a step makes of every clip.
_CROPS = dict(ThreeCrop=3, TenCrop=10)


@dataclass(frozen=True)
class TestViews:
    """What the test pipeline delivers.

    Args:
        number (int, optional): Clips times crops of a video, of a 2D network
            crops times samplings; None for images.
        shape (tuple[int], optional): Height and width in pixels of what the
            full network gets: of an image before its batch is padded, or of
            a view of a video; of a 2D network over video segments, height and
            width. None where the config does not say. Where a pipeline keeps
            the ratio of a video it is that of 480 x 640 pixels.
    """

    number: Optional[int] = None
    shape: Optional[Size] = None


def find_views(
    cfg: Config,
    image_shape: Optional[Sequence[int]] = None,
    stage: str = 'test',
) -> TestViews:
    """Read from the test pipeline of a config what it delivers.

    If there are several test sets, the first counts. A pipeline of videos
    that says nothing else delivers one view. That of images is run on an
    image of zeros.

    Args:
        cfg (Config): Config of any task. Its ``default_scope`` becomes the
            current one.
        image_shape (Sequence[int], optional): Height and width of the
            original image, of videos those of the delivered view. Defaults
            to 480 x 640, COCO's most common size, and to what the config of
            a video says.
        stage (str): ``'val'`` for the pipeline of the validation instead.
            Defaults to ``'test'``.

    Raises:
        ConfigError: If the test pipeline does not run on an original image of
            the given size, or if there is none.
    """
    if not takes_clips(cfg):
        return TestViews(shape=_image_shape(cfg, image_shape, stage))
    for place, dataset in stage_datasets(cfg, (stage,)):
        steps = pipeline_steps(place, dataset)
        if steps:
            full = both_sides(first_of(cfg, 'resolution'))
            found = views_of(steps, dataset.get('modality'), full)
            if image_shape is None:
                return found
            segments = (found.shape or ())[:-2]
            return replace(found, shape=(*segments, *image_shape))
    shape = None if image_shape is None else tuple(image_shape)
    return TestViews(number=1, shape=shape)


def _image_shape(
    cfg: Config, image_shape: Optional[Sequence[int]], stage: str
) -> Optional[Size]:
    """Height and width of an image behind the test pipeline."""
    found = stage_datasets(cfg, (stage,))
    pipelines = (dataset.get('pipeline') for _, dataset in found)
    pipeline = next(filter(None, pipelines), None)
    if pipeline is None:
        if image_shape is not None:
            raise ConfigError(
                f'the config has no {stage}_dataloader.dataset.pipeline for '
                'an image to go through: leave the image shape out'
            )
        return None
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    return delivered_shape(pipeline, image_shape)


def views_of(
    steps: Sequence[Step], modality: Optional[str], full: Optional[Size]
) -> TestViews:
    """Read from the steps of a test pipeline how videos are tested.

    Args:
        steps (Sequence[Step]): In the order that they run.
        modality (str, optional): As the data set has it: frames of
            ``'Flow'`` are stacked to channels for 2D networks.
        full (tuple[int], optional): Full size, which segments of a 2D network
            have where the steps do not say another one.
    """
    size = _delivered_size(sizings(steps, of_clips=True))
    number = prod(map(_multiplier, steps))
    if not makes_segments(steps):
        return TestViews(number, size)
    sampling = sampling_steps(steps)
    clips = prod(
        step.settings.get('num_clips', 1)
        for step in sampling
        if not _spreads(step, modality)
    )
    segments = prod(sampled_segments(s, modality) or 1 for s in sampling)
    size = size or full
    return TestViews(
        number // clips, None if size is None else (segments, *size)
    )


def _delivered_size(sized: Sequence[Sizing]) -> Optional[Size]:
    """Height and width behind some steps, of a common video if need be."""
    if not sized or not sized[-1].certain:
        return None
    return sized[-1].applied(COMMON_SHAPE)


def makes_segments(steps: Sequence[Step]) -> bool:
    """Whether a pipeline makes frames for a 2D network, not clips."""
    return any(
        step.kind == 'FormatShape'
        and step.settings.get('input_format') == 'NCHW'
        for step in steps
    )


def sampled_segments(step: Step, modality: Optional[str]) -> Optional[int]:
    """Count the segments that a 2D network gets of what a step samples once.

    Args:
        step (Step): One of :func:`sampling_steps`.
        modality (str, optional): As for :func:`views_of`.

    Returns:
        int or None: None where the step counts otherwise.
    """
    length = 1 if modality == 'Flow' else step.settings['clip_len']
    spreads = _spreads(step, modality)
    clips = 1 if spreads else step.settings.get('num_clips', 1)
    return clips * length if isinstance(length, int) else None


def _spreads(step: Step, modality: Optional[str]) -> bool:
    """Whether a step spreads each of its clips over the whole video.

    A clip then has all segments that a 2D network is trained with, and several
    clips are views. Frames of flow are stacked: there a clip is one segment.
    """
    return step.kind.startswith('UniformSample') and modality != 'Flow'


def takes_clips(cfg: Config) -> bool:
    """Whether a config is for videos: its subnets have numbers of frames."""
    mutual = (cfg.get('model') or {}).get('mutual') or {}
    return mutual.get('frames') is not None


def first_of(cfg: Config, name: str) -> Any:
    """First value of a list in ``mutual``: the full network's.

    None where there is no list, or one in an order that the model refuses.
    """
    mutual = (cfg.get('model') or {}).get('mutual') or {}
    values = mutual.get(name)
    if not isinstance(values, (list, tuple)) or not values:
        return None
    return values[0] if values[0] == max(values) else None


def frame_stride(cfg: Config) -> int:
    """Frames of a clip for each frame that a subnet counts.

    It is 1, except for networks of two branches, whose subnets count the
    frames of the Slow one: there it is the backbone's ``resample_rate``.
    """
    backbone = cfg.model.get('backbone') or {}
    name = str(backbone.get('wraps') or backbone.get('type'))
    if 'resample_rate' in backbone or 'SlowFast' in name:
        return backbone.get('resample_rate', 8)
    return 1


def sampling_steps(steps: Sequence[Step]) -> List[Step]:
    """The steps that pick the frames of clips, as ``SampleFrames`` does."""
    return [
        s for s in steps if 'Sample' in s.kind and 'clip_len' in s.settings
    ]


def _multiplier(step: Step) -> int:
    """How many clips or crops a test step makes of one."""
    if step.kind in _CROPS:
        return _CROPS[step.kind]
    settings = step.settings
    if step.kind == 'GeneratePoseTarget':
        return 2 if settings.get('double') else 1  # mirrored, too
    clips = settings.get('num_clips', 1)
    if not settings.get('test_mode'):
        return clips
    if step.kind == 'DenseSampleFrames':
        return clips * settings.get('num_sample_positions', 10)
    return clips * (2 if settings.get('twice_sample') else 1)
