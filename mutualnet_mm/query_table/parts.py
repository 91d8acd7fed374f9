# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Results of processes that share the subnets of a table among them.

Each keeps what it has finished in a folder of its own inside of the table's,
with the same settings. Nothing else passes between them.
"""

from pathlib import Path
from typing import Any, Dict, List, Mapping

from ..files import only_user
from .progress import Metrics, Progress


def read_parts(
    folder: Path, settings: Mapping[str, Any], own: str = ''
) -> List[Progress]:
    """Read what all parts have finished so far, and the folder itself.

    Args:
        folder (Path): That of the table.
        settings (Mapping): As for :class:`~.progress.Progress`.
        own (str): Name of a part's folder that is left out. Defaults to none.

    Returns:
        list[Progress]: Without those that hold nothing of these settings.

    Raises:
        UsageError: If one of them holds unfinished results of other settings,
            or is damaged; names its folder.
    """
    places = [folder, *sorted(folder.glob('part-*-of-*'))]
    found = [Progress.read(p, settings) for p in places if p.name != own]
    return [progress for progress in found if progress is not None]


def finished_in(parts: List[Progress]) -> Dict[str, Metrics]:
    """Metrics of the subnets that any of some parts has finished."""
    return {name: m for part in parts for name, m in part.results.items()}


def merge_parts(folder: Path, settings: Mapping[str, Any]) -> Progress:
    """Bring what all parts have finished into the folder of the table.

    The caller holds that folder. Interrupted, it can be done again.

    Args:
        folder (Path): That of the table.
        settings (Mapping): As for :class:`~.progress.Progress`.

    Returns:
        Progress: Of the folder.

    Raises:
        UsageError: As :func:`read_parts` does.
    """
    parts = [p for p in read_parts(folder, settings) if p.folder != folder]
    merged = Progress(folder, settings)
    merged.absorb(parts)
    for part in parts:
        part.finish()
    return merged


def check_free(folder: Path) -> None:
    """Refuse a folder in whose parts other processes are at work.

    Raises:
        UsageError: If so; names the folder of the part.
    """
    for part in sorted(folder.glob('part-*-of-*')):
        with only_user(part):
            pass
