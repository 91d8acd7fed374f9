# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What stock pipelines deliver: the full resolution, and clips' lengths."""

from typing import Any, Iterator, NamedTuple, Optional, Sequence, Tuple

from mmengine.config import Config

from .pipelines import STAGES, Step, both_sides, pipeline_steps, stage_datasets

# What a step calls the size that it makes.
_SIZES = ('crop_size', 'scale', 'size', 'scales', 'img_scale')
_SCALES = 'Resize'  # in the name of steps that scale, ours and stock
_CROPS = 'Crop'


class Delivered(NamedTuple):
    """A number that a pipeline delivers, and the step that says it.

    Args:
        value (int): Pixels, or frames.
        step (Step): As the config writes it.
    """

    value: int
    step: Step

    def __str__(self) -> str:
        stage, _, place = self.step.place.partition('_dataloader')
        del place
        return f'{self.step.kind} of the {stage} pipeline'


def full_resolution(cfg: Config, of_clips: bool) -> Optional[Delivered]:
    """Find the resolution that the pipelines of a config deliver.

    Images are taken as they are tested: the last step of the pipeline that
    says a size counts, its short edge where the ratio is kept. Clips are taken
    as they are trained, since their test views may be larger. Where that
    pipeline keeps the size of the data, the other ones are asked.

    Args:
        cfg (Config): Stock or not.
        of_clips (bool): Whether it is for videos.

    Returns:
        Delivered or None: None where no pipeline says a size.
    """
    stages = STAGES if of_clips else STAGES[::-1]
    for stage in stages:
        for steps in _pipelines(cfg, stage):
            found = None
            for step in steps:
                side = _side(step)
                found = found if side is None else Delivered(side, step)
            if found is not None:
                return found
    return None


def clip_length(cfg: Config, of_segments: bool) -> Optional[Delivered]:
    """Find how many frames the train pipeline of a config delivers.

    Args:
        cfg (Config): Stock or not.
        of_segments (bool): Whether the network takes segments of a video, an
            image or so of each (TSN), rather than one clip.
    """
    for stage in STAGES:
        for steps in _pipelines(cfg, stage):
            for step in steps:
                length = step.settings.get('clip_len')
                if of_segments:
                    length = step.settings.get('num_clips', 1)
                if 'Sample' in step.kind and isinstance(length, int):
                    return Delivered(length, step)
    return None


def _pipelines(cfg: Config, stage: str) -> Iterator[Sequence[Step]]:
    for place, dataset in stage_datasets(cfg, (stage,)):
        yield pipeline_steps(place, dataset)


def _side(step: Step) -> Optional[int]:
    """Short edge that a step makes; None if it makes no certain one."""
    if _SCALES not in step.kind and _CROPS not in step.kind:
        return None
    written = next(
        (step.settings[k] for k in _SIZES if step.settings.get(k)), None
    )
    if step.kind == 'FixShapeResize':
        written = step.settings.get('width'), step.settings.get('height')
    sides = [min(pair) for pair in _pairs(written)]
    # Of several sizes, as multi-scale training has, the largest is full.
    return max(sides, default=None)


def _pairs(written: Any) -> Iterator[Tuple[int, int]]:
    """Yield the sizes that a setting names, as pairs of pixels."""
    sides = both_sides(written)
    if sides is not None and all(isinstance(s, int) for s in sides):
        # mmaction2 writes -1 for the edge that follows from the other.
        known = [side for side in sides if side > 0] or [0]
        if min(known) > 1:
            yield min(known), max(known)
    elif isinstance(written, (list, tuple)):
        for item in written:
            if isinstance(item, (list, tuple)):
                yield from _pairs(item)
