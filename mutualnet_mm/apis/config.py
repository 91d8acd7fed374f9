# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Configs as the tools read them: checked before any work starts."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Optional, Sequence, Tuple

from mmengine.config import Config
from mmengine.dist import infer_launcher

from ..errors import ConfigError

STAGES = ('train', 'val', 'test')


def load_config(
    path: str,
    options: Optional[dict] = None,
    work_dir: Optional[str] = None,
    launcher: str = 'auto',
    stages: Sequence[str] = STAGES,
) -> Config:
    """Read a config file, apply the command line and check it.

    Args:
        path (str): Config file.
        options (dict, optional): Of ``--cfg-options``. Defaults to None.
        work_dir (str, optional): Defaults to the config's own, else to
            ``work_dirs/<name of the config>``.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'``, ``'mpi'``, or
            ``'auto'`` for what started this process. Defaults to ``'auto'``.
        stages (Sequence[str]): Whose data is checked. Defaults to all of
            ``'train'``, ``'val'`` and ``'test'``.

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
    check_annotations(cfg, stages)
    check_resolution(cfg, stages)
    return cfg


def check_annotations(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse a config whose annotation files do not exist.

    Raises:
        ConfigError: Names the setting and the file.
    """
    for place, dataset in _stage_datasets(cfg, stages):
        file = dataset.get('ann_file')
        root = str(dataset.get('data_root') or '')
        if not file or '://' in str(file) or '://' in root:
            continue
        full = Path(root, file)
        if not full.is_file():
            raise ConfigError(
                f'annotation file {str(full)!r} does not exist: set '
                f'{place}.data_root or {place}.ann_file'
            )


def check_resolution(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse a pipeline that delivers another than the full resolution.

    Of detectors the short edge of ``Resize`` is compared, of classifiers the
    side of the last crop or square ``Resize``. Training and testing refuse
    others too, but only when an image of that stage has come.

    Raises:
        ConfigError: Names the step, its size and the full resolution.
    """
    mutual = cfg.get('model', {}).get('mutual') or {}
    resolution = mutual.get('resolution')
    if not isinstance(resolution, (list, tuple)) or not resolution:
        return
    is_classifier = 'Classifier' in str(cfg.model.get('wraps'))
    delivered = _square_sides if is_classifier else _short_edges
    for place, dataset in _stage_datasets(cfg, stages):
        steps = list(dataset.get('pipeline') or ())
        for i, size, side in delivered(steps):
            if side != resolution[0]:
                kind = steps[i]['type']
                raise ConfigError(
                    f'{place}.pipeline.{i} is a {kind} of {size}, but the '
                    'full resolution, mutual.resolution[0], is '
                    f'{resolution[0]}: they must agree'
                )


_Size = Tuple[int, Any, int]
"""Position of a step, the size that it names, and what is compared of it."""


def _short_edges(steps: Sequence[dict]) -> Iterator[_Size]:
    if any('Crop' in str(step.get('type')) for step in steps):
        return
    for i, step in enumerate(steps):
        scale = step.get('scale')
        if (
            _kind(step) == 'Resize'
            and step.get('keep_ratio')
            and isinstance(scale, (list, tuple))
            and min(scale) > 0
        ):
            yield i, scale, min(scale)


def _square_sides(steps: Sequence[dict]) -> Iterator[_Size]:
    found: List[_Size] = []
    for i, step in enumerate(steps):
        if 'Crop' in _kind(step):
            size = step.get('crop_size', step.get('scale'))
        elif _kind(step) == 'Resize' and not step.get('keep_ratio'):
            size = step.get('scale')
        else:
            continue
        if isinstance(size, int):
            found.append((i, size, size))
        elif isinstance(size, (list, tuple)):
            found.append((i, size, max(size)))
    yield from found[-1:]


def _kind(step: dict) -> str:
    return str(step.get('type')).split('.')[-1]


def _stage_datasets(
    cfg: Config, stages: Sequence[str]
) -> Iterator[Tuple[str, dict]]:
    for stage in stages:
        name = f'{stage}_dataloader'
        loader = cfg.get(name) or {}
        yield from _datasets(f'{name}.dataset', loader.get('dataset'))


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
