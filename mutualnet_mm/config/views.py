# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the pipelines of a video config deliver: clips, and views of them."""

from dataclasses import dataclass
from math import prod
from typing import List, Optional, Sequence, Tuple

from mmengine.config import Config

from ..subnet import Size
from .pipelines import Step, both_sides, pipeline_steps, stage_datasets

# Crops that a step makes of every clip.
_CROPS = dict(ThreeCrop=3, TenCrop=10)


@dataclass(frozen=True)
class TestViews:
    """How a video is tested.

    Args:
        number (int, optional): Clips times crops of a video, of a 2D network
            crops times samplings; None for images.
        shape (tuple[int], optional): Height and width in pixels of the views
            that the full network gets; None where the config does not say. Of
            a 2D network segments, height and width.
    """

    number: Optional[int] = None
    shape: Optional[Size] = None


def find_views(cfg: Config) -> TestViews:
    """Read from the test pipeline of a config how videos are tested.

    If there are several test sets, the first counts. A pipeline that says
    nothing else delivers one view.

    Args:
        cfg (Config): Config of any task.
    """
    if not takes_clips(cfg):
        return TestViews()
    for place, dataset in stage_datasets(cfg, ('test',)):
        steps = pipeline_steps(place, dataset)
        if steps:
            full = cfg.model.mutual.get('resolution') or [None]
            modality = dataset.get('modality')
            return views_of(steps, modality, both_sides(full[0]))
    return TestViews(number=1)


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
    sized = sizing_step(steps)
    size = None if sized is None else sized[1]
    number = prod(map(_multiplier, steps))
    if not makes_segments(steps):
        return TestViews(number, size)
    sampling = sampling_steps(steps)
    clips = prod(step.settings.get('num_clips', 1) for step in sampling)
    segments = prod(sampled_segments(s, modality) or 1 for s in sampling)
    size = size or full
    return TestViews(
        number // clips, None if size is None else (segments, *size)
    )


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
    clips = step.settings.get('num_clips', 1)
    return clips * length if isinstance(length, int) else None


def takes_clips(cfg: Config) -> bool:
    """Whether a config is for videos: its subnets have numbers of frames."""
    mutual = (cfg.get('model') or {}).get('mutual') or {}
    return mutual.get('frames') is not None


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


def sizing_step(steps: Sequence[Step]) -> Optional[Tuple[Step, Size]]:
    """Find the step that sets the size of the delivered frames.

    Returns:
        tuple or None: The last crop or ``Resize`` to a given size, with
        height and width; None where the size depends on the video.
    """
    found = None
    for step in steps:
        if 'Crop' in step.kind:
            # mmaction2 names it in two ways, or draws the size at random.
            size = step.settings.get('size', step.settings.get('crop_size'))
        elif step.kind == 'Resize':
            # mmaction2 keeps the ratio by default.
            keeps = step.settings.get('keep_ratio', True)
            size = None if keeps else step.settings.get('scale')
        else:
            continue
        sides = both_sides(size)
        # mmaction2 writes the width first.
        found = None if sides is None else (step, (sides[1], sides[0]))
    return found


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
