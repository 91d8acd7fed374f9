# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The checkpoint that an interrupted training goes on from."""

import logging
from pathlib import Path
from typing import Iterable, List, Optional

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner.checkpoint import find_latest_checkpoint

from ..errors import UsageError
from .checkpoints import check_exists, read_content

_NEEDED = ('state_dict', 'optimizer', 'meta', 'message_hub')


def skip_damaged(cfg: Config) -> None:
    """Let a training go on from its last checkpoint that is whole.

    MMEngine writes checkpoints, and the note ``last_checkpoint`` that names
    the last one, in place: a process that is killed meanwhile, or a full
    disk, leaves a part of a file, which the stock runner cannot go on from.
    A training that has no such note has saved nothing, and starts.

    Args:
        cfg (Config): Its ``resume``, ``load_from`` and ``work_dir`` count, as
            the runner takes them. It gets a ``load_from`` where the file that
            the note names is missing or damaged.

    Raises:
        UsageError: If no whole checkpoint is left. The training does not
            start anew by itself.
    """
    if not cfg.get('resume') or cfg.get('load_from') is not None:
        return
    named = find_latest_checkpoint(cfg.work_dir)
    if named is None:
        return
    reason = _flaw(named) if named else 'the note last_checkpoint is empty'
    if reason is None:
        return
    folders = {Path(cfg.work_dir)}
    if Path(named).suffix:  # else a part of a path, which leads elsewhere
        folders.add(Path(named).parent)
    for path in _newest_first(folders):
        if path != Path(named) and _flaw(str(path)) is None:
            cfg.load_from = str(path)
            print_log(
                f'{reason}: training goes on from {cfg.load_from!r}, the '
                'newest checkpoint that is whole',
                logger='current',
                level=logging.WARNING,
            )
            return
    raise UsageError(
        f'{reason}, and no other checkpoint of the training in '
        f'{str(cfg.work_dir)!r} is whole: start anew without resuming, or '
        'give --resume a file'
    )


def _flaw(path: str) -> Optional[str]:
    """Why no training can go on from a file, if it cannot."""
    try:
        check_exists(path)
        content = read_content(path, 'checkpoint')
    except UsageError as error:
        return str(error)
    if isinstance(content, dict) and all(k in content for k in _NEEDED):
        return None
    return f'checkpoint {path!r} holds weights alone'


def _newest_first(folders: Iterable[Path]) -> List[Path]:
    files = {path for folder in folders for path in folder.glob('*.pth')}
    return sorted(files, key=lambda p: p.stat().st_mtime_ns, reverse=True)
