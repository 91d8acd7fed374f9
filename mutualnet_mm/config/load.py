# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Configs as the tools read them: checked before any work starts."""

from pathlib import Path
from typing import Optional, Sequence

from mmengine.config import Config
from mmengine.dist import infer_launcher

from ..errors import ConfigError, as_usage_error
from .checks import check_clips, check_colours, check_files
from .coco_files import check_coco_files
from .launchers import check_launched
from .pipelines import STAGES
from .sizes import check_masks, check_multi_resolution, check_resolution
from .stock import find_config


def load_config(
    path: str,
    options: Optional[dict] = None,
    work_dir: Optional[str] = None,
    launcher: str = 'auto',
    stages: Sequence[str] = STAGES,
) -> Config:
    """Read a config file, apply the command line and check it.

    Args:
        path (str): Config file, or the name of one in a package, such as
            ``'mutualnet_mm::detection/NAME.py'``.
        options (dict, optional): Values of ``--cfg-options``. Defaults to
            None.
        work_dir (str, optional): Defaults to the config's own, else to
            ``work_dirs/<name of the config>``.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'``, ``'mpi'``, or
            ``'auto'`` for what started this process. Defaults to ``'auto'``.
        stages (Sequence[str]): Stages whose data is checked. Defaults to all
            of ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        ConfigError: If the config cannot be read, or options do not fit it;
            if it has no model, or one without a type; if a launcher is named
            that did not start this process; if a file that the config names
            does not exist, or is an annotation file of COCO's that stock
            code would take wrongly; if its pipelines do not deliver the full
            resolution, clips as long as the full network's, or as many
            channels as are normalised; or if steps of the training do not
            fit together.
    """
    file, _ = find_config(path)
    with as_usage_error(f'config {path!r} cannot be read', ConfigError):
        cfg = Config.fromfile(file)
    if options:
        given = ' '.join(f'{key}={value}' for key, value in options.items())
        with as_usage_error(
            f'config {path!r} cannot take {given}', ConfigError
        ):
            cfg.merge_from_dict(options)
    model = cfg.get('model')
    if not isinstance(model, dict) or model.get('type') is None:
        raise ConfigError(
            f'config {path!r} has no model with a type: set model=dict('
            'type=..., ...)'
        )
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / file.stem)
    cfg.launcher = infer_launcher() if launcher == 'auto' else launcher
    check_launched(cfg.launcher)
    check_files(cfg, stages)
    check_coco_files(cfg, stages)
    check_colours(cfg, stages)
    check_resolution(cfg, stages)
    if 'train' in stages:
        check_multi_resolution(cfg)
        check_masks(cfg)
    check_clips(cfg, stages)
    return cfg
