# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a config must agree with itself and with the disk on."""

from pathlib import Path
from typing import Any, Iterator, List, Sequence, Tuple

from mmengine.config import Config

from ..errors import ConfigError
from .pipelines import STAGES, Step, pipeline_steps, stage_datasets
from .views import frame_stride, is_video, sampling_steps, sizing_step


def check_annotations(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse a config whose annotation files or video folders do not exist.

    Raises:
        ConfigError: Names the setting and the file.
    """
    for place, dataset in stage_datasets(cfg, stages):
        root = str(dataset.get('data_root') or '')
        file = dataset.get('ann_file')
        if file and _is_local(root, file) and not Path(root, file).is_file():
            raise ConfigError(
                f'annotation file {str(Path(root, file))!r} does not exist: '
                f'set {place}.data_root or {place}.ann_file'
            )
        prefix = dataset.get('data_prefix')
        folder = prefix.get('video') if isinstance(prefix, dict) else None
        if (
            folder
            and _is_local(root, folder)
            and not Path(root, folder).is_dir()
        ):
            raise ConfigError(
                f'video folder {str(Path(root, folder))!r} does not exist: '
                f'set {place}.data_root or {place}.data_prefix.video'
            )


def _is_local(root: str, path: str) -> bool:
    return '://' not in root and '://' not in str(path)


def check_resolution(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse a pipeline that delivers another than the full resolution.

    Of detectors the short edge of ``Resize`` is compared, of classifiers the
    side of the last crop or square ``Resize``, of recognizers both sides of
    the training clips: they may be tested on larger views. Training and
    testing refuse others too, but only when an image of that stage has come.

    Raises:
        ConfigError: Names the step, its size and the full resolution.
    """
    full = _first(cfg, 'resolution')
    if full is None:
        return
    delivered = _short_edges
    if 'Classifier' in str(cfg.model.get('wraps')):
        delivered = _square_sides
    elif is_video(cfg):
        delivered = _clip_sides
        stages = [stage for stage in stages if stage == 'train']
    for place, dataset in stage_datasets(cfg, stages):
        for step, size, sides in delivered(pipeline_steps(place, dataset)):
            if any(side != full for side in sides):
                raise ConfigError(
                    f'{step.place} is a {step.kind} of {size}, but the full '
                    'resolution, mutual.resolution[0], is '
                    f'{full}: they must agree'
                )


def check_clips(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse a pipeline whose clips are not as long as the full network's.

    One that trains on several clips of a video is refused, too: stock heads
    have one label for each.

    Raises:
        ConfigError: Names the step, what it says and what is right.
    """
    frames = _first(cfg, 'frames')
    if frames is None or not is_video(cfg):
        return
    stride = frame_stride(cfg)
    times = '' if stride == 1 else f' x resample_rate={stride}'
    for place, dataset in stage_datasets(cfg, stages):
        for step in sampling_steps(pipeline_steps(place, dataset)):
            clips = step.settings.get('num_clips', 1)
            if place.startswith('train') and clips != 1:
                raise ConfigError(
                    f'{step.place} is a {step.kind} of num_clips={clips}: '
                    'train on one clip of a video, num_clips=1'
                )
            length = step.settings['clip_len']
            if isinstance(length, int) and length != frames * stride:
                raise ConfigError(
                    f'{step.place} is a {step.kind} of clip_len='
                    f'{length}, but the full network takes '
                    f'mutual.frames[0]={frames}{times} frames: set clip_len='
                    f'{frames * stride}'
                )


def _first(cfg: Config, name: str) -> Any:
    """First one of a list of ``mutual``: the full network's."""
    mutual = (cfg.get('model') or {}).get('mutual') or {}
    values = mutual.get(name)
    if not isinstance(values, (list, tuple)) or not values:
        return None
    # Of another order, the model says what is wrong with it.
    return values[0] if values[0] == max(values) else None


_Sized = Tuple[Step, Any, Tuple[int, ...]]
"""A step, the size that it names, and what is compared of it."""


def _short_edges(steps: Sequence[Step]) -> Iterator[_Sized]:
    if any('Crop' in step.kind for step in steps):
        return
    for step in steps:
        scale = step.settings.get('scale')
        if (
            step.kind == 'Resize'
            and step.settings.get('keep_ratio')
            and isinstance(scale, (list, tuple))
            and min(scale) > 0
        ):
            yield step, scale, (min(scale),)


def _square_sides(steps: Sequence[Step]) -> Iterator[_Sized]:
    found: List[_Sized] = []
    for step in steps:
        settings = step.settings
        if 'Crop' in step.kind:
            size = settings.get('crop_size', settings.get('scale'))
        elif step.kind == 'Resize' and not settings.get('keep_ratio'):
            size = settings.get('scale')
        else:
            continue
        if isinstance(size, int):
            found.append((step, size, (size,)))
        elif isinstance(size, (list, tuple)):
            found.append((step, size, (max(size),)))
    yield from found[-1:]


def _clip_sides(steps: Sequence[Step]) -> Iterator[_Sized]:
    found = sizing_step(steps)
    if found is not None:
        step, (height, width) = found
        yield step, f'{width} x {height}', (height, width)
