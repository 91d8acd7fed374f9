# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Configs as the tools read them: checked before any work starts."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional, Tuple

from mmengine.config import Config
from mmengine.dist import infer_launcher

from ..errors import ConfigError


def load_config(
    path: str,
    options: Optional[dict] = None,
    work_dir: Optional[str] = None,
    launcher: str = 'auto',
) -> Config:
    """Read a config file, apply the command line and check it.

    Args:
        path (str): Config file.
        options (dict, optional): Of ``--cfg-options``. Defaults to None.
        work_dir (str, optional): Defaults to the config's own, else to
            ``work_dirs/<name of the config>``.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'``, ``'mpi'``, or
            ``'auto'`` for what started this process. Defaults to ``'auto'``.

    Raises:
        ConfigError: If a file that the config names does not exist, or if
            its pipeline delivers another than the full resolution.
    """
    if not Path(path).is_file():
        raise ConfigError(f'config {path!r} does not exist')
    cfg = Config.fromfile(path)
    if options:
        cfg.merge_from_dict(options)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(path).stem)
    cfg.launcher = infer_launcher() if launcher == 'auto' else launcher
    check_annotations(cfg)
    check_resolution(cfg)
    return cfg


def check_annotations(cfg: Config) -> None:
    """Refuse a config whose annotation files do not exist.

    Raises:
        ConfigError: Names the setting and the file.
    """
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if not loader:
            continue
        for place, dataset in _datasets(
            f'{name}.dataset', loader.get('dataset')
        ):
            file = dataset.get('ann_file')
            if (
                not file
                or '://' in str(file)
                or '://' in str(dataset.get('data_root'))
            ):
                continue
            full = Path(dataset.get('data_root') or '', file)
            if not full.is_file():
                raise ConfigError(
                    f'annotation file {str(full)!r} does not exist: set '
                    f'{place}.data_root or {place}.ann_file'
                )


def check_resolution(cfg: Config) -> None:
    """Refuse a training pipeline that resizes to another short edge.

    Training refuses it too, but needs images of two aspect ratios to see a
    pipeline below the full resolution.

    Raises:
        ConfigError: Names the scale and the full resolution.
    """
    mutual = cfg.get('model', {}).get('mutual') or {}
    full = (mutual.get('resolution') or [None])[0]
    loader = cfg.get('train_dataloader') or {}
    for place, dataset in _datasets(
        'train_dataloader.dataset', loader.get('dataset')
    ):
        for i, step in enumerate(dataset.get('pipeline') or ()):
            scale = step.get('scale')
            if (
                full is not None
                and step.get('type') == 'Resize'
                and isinstance(scale, (list, tuple))
                and min(scale) != full
            ):
                raise ConfigError(
                    f'{place}.pipeline.{i} is a Resize with scale={scale}, '
                    f'but the full resolution, mutual.resolution[0], is '
                    f'{full}: they must agree'
                )


def _datasets(place: str, dataset: Any) -> Iterator[Tuple[str, dict]]:
    if isinstance(dataset, (list, tuple)):
        for i, item in enumerate(dataset):
            yield from _datasets(f'{place}.{i}', item)
    elif isinstance(dataset, dict):
        yield place, dataset
        for key in ('dataset', 'datasets'):
            yield from _datasets(f'{place}.{key}', dataset.get(key))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End a tool in one line where the user can put something right.

    Anything else is a defect and keeps its traceback.
    """
    try:
        yield
    except (ConfigError, FileNotFoundError, ModuleNotFoundError) as error:
        sys.exit(f'error: {error}')
