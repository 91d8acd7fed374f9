# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Checks that a config agrees with itself and with the disk."""

import os
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence, Tuple

from mmengine.config import Config

from ..errors import ConfigError
from .pipelines import STAGES, Step, pipeline_steps, stage_datasets
from .views import (
    first_of,
    frame_stride,
    makes_segments,
    sampled_segments,
    sampling_steps,
)

# Data sets that fetch what their folder lacks.
_DOWNLOADED = ('CIFAR10', 'CIFAR100', 'FashionMNIST', 'MNIST')


def check_files(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse a config whose annotation files or data folders do not exist.

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
        for name, prefix in _prefixes(dataset.get('data_prefix')):
            folder = _local_path(dataset, prefix)
            if folder is not None and not folder.is_dir():
                kind = 'video' if name.endswith('video') else 'image'
                raise ConfigError(
                    f'{kind} folder {str(folder)!r} does not exist: '
                    f'set {place}.data_root or {place}.{name}'
                )
        root = _local_path(dict(), dataset.get('data_root'))
        if root is not None and not root.exists() and _reads_root(dataset):
            raise ConfigError(
                f'{place}.data_root={dataset["data_root"]!r} does not exist: '
                'set it to the folder of the data'
            )
    for stage in stages:
        _check_truth(f'{stage}_evaluator', cfg.get(f'{stage}_evaluator'))


def _check_truth(place: str, evaluator: Any) -> None:
    """Refuse a metric whose own annotation file does not exist."""
    if isinstance(evaluator, (list, tuple)):
        for i, metric in enumerate(evaluator):
            _check_truth(f'{place}.{i}', metric)
    elif isinstance(evaluator, dict) and not _is_remote(evaluator):
        file = _local_path(dict(), evaluator.get('ann_file'))
        if file is not None and not file.is_file():
            raise ConfigError(
                f'{place}.ann_file={str(file)!r} does not exist: set it to '
                "the annotation file of the data set's images"
            )


def _prefixes(prefix: Any) -> Iterator[Tuple[str, Any]]:
    """Yield the settings that name folders of images or videos."""
    if isinstance(prefix, dict):
        for key in ('img', 'img_path', 'video'):
            yield f'data_prefix.{key}', prefix.get(key)
    else:
        yield 'data_prefix', prefix


def _reads_root(dataset: dict) -> bool:
    """Whether ``data_root`` is needed: not by paths that begin elsewhere."""
    if Step('', dataset).kind in _DOWNLOADED:
        return dataset.get('download') is False
    prefixes = [value for _, value in _prefixes(dataset.get('data_prefix'))]
    written = [*prefixes, dataset.get('ann_file')]
    return not any(
        value and os.path.isabs(os.path.expanduser(value)) for value in written
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


def check_colours(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse grey images that are normalised as colours.

    Stock normalisation makes one channel three, without a word.

    Raises:
        ConfigError: Names the step.
    """
    preprocessor = cfg.model.get('data_preprocessor') or (
        cfg.get('data_preprocessor') or {}
    )
    mean = preprocessor.get('mean')
    if not isinstance(mean, (list, tuple)) or len(mean) == 1:
        return
    for place, dataset in stage_datasets(cfg, stages):
        for step in pipeline_steps(place, dataset):
            color_type = str(step.settings.get('color_type'))
            if color_type.startswith('grayscale'):
                raise ConfigError(
                    f'{step.place} is a {step.kind} of color_type='
                    f'{color_type!r}, one channel, but data_preprocessor.mean '
                    f'has {len(mean)} values: give mean and std one value and '
                    "the backbone in_channels=1, or set color_type='color'"
                )


def check_clips(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse a pipeline whose clips are not as long as the full network's.

    A pipeline that trains on several clips of a video is refused, too: stock
    heads have one label for each video. Of a 2D network the segments in
    training count; how many it takes in testing is its own affair.

    Raises:
        ConfigError: Names the step, its value and the right one.
    """
    frames = first_of(cfg, 'frames')
    if frames is None:
        return
    for place, dataset in stage_datasets(cfg, stages):
        steps = pipeline_steps(place, dataset)
        trains = place.startswith('train')
        for step in sampling_steps(steps):
            if not makes_segments(steps):
                _check_clip(step, trains, frames, frame_stride(cfg))
            elif trains:
                _check_segments(step, frames, dataset.get('modality'))


def _check_clip(step: Step, trains: bool, frames: int, stride: int) -> None:
    clips = step.settings.get('num_clips', 1)
    if trains and clips != 1:
        raise ConfigError(
            f'{step.place} is a {step.kind} of num_clips={clips}: '
            'train on one clip of a video, num_clips=1'
        )
    times = '' if stride == 1 else f' x resample_rate={stride}'
    length = step.settings['clip_len']
    if isinstance(length, int) and length != frames * stride:
        raise ConfigError(
            f'{step.place} is a {step.kind} of clip_len='
            f'{length}, but the full network takes '
            f'mutual.frames[0]={frames}{times} frames: set clip_len='
            f'{frames * stride}'
        )


def _check_segments(step: Step, frames: int, modality: Optional[str]) -> None:
    found = sampled_segments(step, modality)
    if found not in (None, frames):
        length = '' if modality == 'Flow' else 'clip_len=1, '
        raise ConfigError(
            f'{step.place} is a {step.kind} of {found} segments, but the full '
            f'network takes mutual.frames[0]={frames}: set {length}num_clips='
            f'{frames}, or another mutual.frames[0]'
        )
