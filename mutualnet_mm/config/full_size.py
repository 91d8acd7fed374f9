# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What stock pipelines deliver: the full resolution, and clips' lengths."""

from typing import NamedTuple, Optional

from mmengine.config import Config

from .pipelines import STAGES, Step, pipeline_steps, stage_datasets
from .sized_steps import sizings
from .views import sampled_segments, sampling_steps


class Delivered(NamedTuple):
    """A number that a pipeline delivers, and the step that says it.

    Args:
        value (int): Pixels, or frames.
        step (Step): As the config writes it.
        stage (str): Of the pipeline, such as ``'test'``.
    """

    value: int
    step: Step
    stage: str

    def __str__(self) -> str:
        return f'{self.step.kind} of the {self.stage} pipeline'


def full_resolution(cfg: Config, of_clips: bool) -> Optional[Delivered]:
    """Find the resolution that the pipelines of a config deliver.

    Images are taken as they are tested: the last step of the pipeline that
    says a size counts, its short edge, of several sizes that of the largest.
    Clips are taken as they are trained, since their test views may be larger.
    Where that pipeline keeps the size of the data, the other ones are asked.

    Args:
        cfg (Config): Stock or not.
        of_clips (bool): Whether it is for videos.

    Returns:
        Delivered or None: None where no pipeline says a size.
    """
    stages = STAGES if of_clips else STAGES[::-1]
    for stage in stages:
        for place, dataset in stage_datasets(cfg, (stage,)):
            steps = pipeline_steps(place, dataset)
            for found in reversed(sizings(steps, of_clips)):
                if found.sides:
                    return Delivered(min(found.sides), found.step, stage)
    return None


def clip_length(cfg: Config, of_segments: bool) -> Optional[Delivered]:
    """Find how many frames the train pipeline of a config delivers.

    Args:
        cfg (Config): Stock or not.
        of_segments (bool): Whether the network takes segments of a video, an
            image or so of each (TSN), rather than one clip.
    """
    for stage in STAGES:
        for place, dataset in stage_datasets(cfg, (stage,)):
            for step in sampling_steps(pipeline_steps(place, dataset)):
                length = step.settings['clip_len']
                if of_segments:
                    length = sampled_segments(step, dataset.get('modality'))
                if isinstance(length, int):
                    return Delivered(length, step, stage)
    return None
