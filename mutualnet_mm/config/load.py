# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Configs as the tools read them: checked before any work starts."""

from pathlib import Path
from typing import Optional, Sequence

from mmengine.config import Config
from mmengine.dist import infer_launcher

from ..errors import ConfigError
from .checks import check_annotations, check_clips, check_resolution
from .pipelines import STAGES


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
        options (dict, optional): Values of ``--cfg-options``. Defaults to
            None.
        work_dir (str, optional): Defaults to the config's own, else to
            ``work_dirs/<name of the config>``.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'``, ``'mpi'``, or
            ``'auto'`` for what started this process. Defaults to ``'auto'``.
        stages (Sequence[str]): Stages whose data is checked. Defaults to all
            of ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        ConfigError: If a file that the config names does not exist, or if
            its pipeline does not deliver the full resolution or clips as long
            as the full network's.
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
    check_clips(cfg, stages)
    return cfg
