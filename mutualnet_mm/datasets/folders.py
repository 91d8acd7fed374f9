# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Folders of the data sets that are made here."""

import json
from pathlib import Path
from typing import Any, Dict

from ..errors import ConfigError
from ..files import atomic_write, make_folder


def start_folder(out_dir: Path, file: str, settings: Dict[str, Any]) -> bool:
    """Prepare the folder of a data set, which is written next.

    Args:
        out_dir (Path): A new or empty folder, or an earlier result.
        file (str): Name of the file in it that keeps the settings.
        settings (dict): All that the data set depends on, and ``made_by``,
            the name of the function.

    Returns:
        bool: False if the folder holds this very data set, complete.

    Raises:
        ConfigError: If it holds anything that the same function did not make,
            or cannot be made.
    """
    if out_dir.is_dir() and any(out_dir.iterdir()):
        found = _read(out_dir / file)
        if found == {**settings, 'complete': True}:
            return False
        if found.get('made_by') != settings['made_by']:
            raise ConfigError(
                f'out_dir={str(out_dir)!r} holds something that '
                f'{settings["made_by"]} did not make: name a new folder'
            )
    make_folder(out_dir)
    _write(out_dir / file, {**settings, 'complete': False})
    return True


def finish_folder(out_dir: Path, file: str, settings: Dict[str, Any]) -> None:
    """Note that a data set is complete; arguments as of the start."""
    _write(out_dir / file, {**settings, 'complete': True})


def _read(path: Path) -> Dict[str, Any]:
    """Settings in a file; none if it is missing, damaged or another's."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, settings: Dict[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(settings, indent=2) + '\n').encode())
