# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Checks that a config agrees with itself and with the disk."""

import os
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

from mmengine.config import Config

from ..errors import ConfigError
from .pipelines import STAGES, Step, both_sides, pipeline_steps, stage_datasets
from .views import frame_stride, sampling_steps, sizing_step, takes_clips


def check_annotations(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse a config whose annotation files or video folders do not exist.

    Files behind ``backend_args`` (object stores, path mappings) and URLs are
    not looked for.

    Raises:
        ConfigError: Names the setting and the file.
    """
    for place, dataset in stage_datasets(cfg, stages):
        if _is_remote(dataset):
            continue
        file = _local_path(dataset, dataset.get('ann_file'))
        if file is not None and not file.is_file():
            raise ConfigError(
                f'annotation file {str(file)!r} does not exist: '
                f'set {place}.data_root or {place}.ann_file'
            )
        prefix = dataset.get('data_prefix')
        video = prefix.get('video') if isinstance(prefix, dict) else None
        folder = _local_path(dataset, video)
        if folder is not None and not folder.is_dir():
            raise ConfigError(
                f'video folder {str(folder)!r} does not exist: '
                f'set {place}.data_root or {place}.data_prefix.video'
            )


def _is_remote(dataset: dict) -> bool:
    """Whether files are read through a storage backend, or paths mapped."""
    backend = dataset.get('backend_args') or {}
    return bool(backend) and backend.get('backend') != 'local'


def _local_path(dataset: dict, written: Any) -> Optional[Path]:
    """Where a data set looks for a file; None if there is none, or a URL."""
    root = str(dataset.get('data_root') or '')
    if not written or '://' in root or '://' in str(written):
        return None
    # mmpretrain's data sets expand the home folder; those that do not will
    # name the file themselves.
    return Path(os.path.expanduser(root), os.path.expanduser(written))


def check_resolution(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse a pipeline that does not deliver the full resolution.

    The last step that sets a size counts: the short edge of a ``Resize`` that
    keeps the ratio, else the side. For clips, both sides are compared, and
    only in training: they may be tested on larger views.
    Training and testing refuse other sizes, too, but only once an image of
    that stage is there. Sizes that depend on the image, and pipelines of
    other projects, are left to them.

    Raises:
        ConfigError: Names the step, its size and the full resolution.
    """
    full = _first(cfg, 'resolution')
    if full is None:
        return
    if _scope(cfg) not in _SCOPES:
        return
    delivered = _image_size
    if takes_clips(cfg):
        delivered = _clip_size
        stages = [stage for stage in stages if stage == 'train']
    for place, dataset in stage_datasets(cfg, stages):
        found = delivered(pipeline_steps(place, dataset), full)
        if found is not None and not found.agrees:
            raise ConfigError(
                f'{found.step.place} is a {found.step.kind} of {found.size}, '
                'but the full resolution, mutual.resolution[0], is '
                f'{full}: they must agree'
            )


def check_clips(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse a pipeline whose clips are not as long as the full network's.

    A pipeline that trains on several clips of a video is refused, too: stock
    heads have one label for each video.

    Raises:
        ConfigError: Names the step, its value and the right one.
    """
    frames = _first(cfg, 'frames')
    if frames is None:
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
    """First value of a list in ``mutual``: the full network's."""
    mutual = (cfg.get('model') or {}).get('mutual') or {}
    values = mutual.get(name)
    if not isinstance(values, (list, tuple)) or not values:
        return None
    # The model refuses lists in another order.
    return values[0] if values[0] == max(values) else None


# Projects whose steps are understood here; None if a config has no scope.
_SCOPES = (None, 'mmengine', 'mmpretrain', 'mmdet', 'mmaction')


def _scope(cfg: Config) -> Optional[str]:
    """Project whose transforms the pipelines use."""
    wraps = str(cfg.model.get('wraps'))
    own = wraps.partition('.')[0] if '.' in wraps else None
    return own or cfg.model.get('_scope_') or cfg.get('default_scope')


class _Sized(NamedTuple):
    """A step, the size that it names, and whether it is the full one."""

    step: Step
    size: Any
    agrees: bool


def _image_size(steps: Sequence[Step], full: int) -> Optional[_Sized]:
    found = None
    for step in steps:
        settings = step.settings
        if 'Crop' in step.kind:
            size = settings.get('crop_size', settings.get('scale'))
        elif step.kind == 'Resize':
            size = settings.get('scale')
        else:
            continue
        sides = both_sides(size)
        found = None
        if sides is None or not all(
            isinstance(side, int) and side > 0 for side in sides
        ):
            continue  # random, or depends on the image
        keeps = step.kind == 'Resize' and settings.get('keep_ratio')
        agrees = min(sides) == full if keeps else full in sides
        found = _Sized(step, size, agrees)
    return found


def _clip_size(steps: Sequence[Step], full: int) -> Optional[_Sized]:
    found = sizing_step(steps)
    if found is None:
        return None
    step, (height, width) = found
    return _Sized(step, f'{width} x {height}', height == width == full)
