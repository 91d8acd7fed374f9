# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Files that are there whole or not at all."""

import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Iterator, Optional, Union
from zipfile import BadZipFile, ZipFile

import torch
from filelock import FileLock

from .errors import ConfigError


@contextmanager
def atomic_write(path: Union[str, Path]) -> Iterator[IO[bytes]]:
    """Open a draft that takes the place of ``path`` when all is written.

    Whatever interrupts the ``with`` block, also the loss of power, leaves the
    file that was there before. Each writer has a draft of its own in the same
    folder, which an error or an interruption removes; of two writers the last
    one to finish is the one whose file stays. A symbolic link stays one: the
    file that it points to is replaced.

    Args:
        path (str or Path): File to write.
    """
    path = Path(os.path.realpath(path))
    draft = path.with_name(f'{path.name}.{secrets.token_hex(4)}.part')
    try:
        with draft.open('xb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, draft)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def only_writer(path: Union[str, Path]) -> Iterator[None]:
    """Keep other processes from changing a file that is read and rewritten.

    Those that use this function wait for each other; a hidden lock file stays
    beside ``path``.

    Args:
        path (str or Path): File that the ``with`` block reads and writes.
    """
    path = Path(os.path.realpath(path))
    with FileLock(str(path.with_name(f'.{path.name}.lock'))):
        yield


def make_folder(path: Union[str, Path]) -> Path:
    """Make a folder and those that it lies in, unless it is there.

    Args:
        path (str or Path): What the user named.

    Returns:
        Path: ``path``.

    Raises:
        ConfigError: If there is a file, or no permission; names the folder.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f'folder {str(path)!r} cannot be made: {error.strerror}; name '
            'another'
        ) from error
    return path


def load_tensors(
    path: Union[str, Path],
    map_location: Optional[Union[str, torch.device]] = 'cpu',
) -> Any:
    """``torch.load`` of tensors and plain containers, with its checksums.

    Args:
        path (str or Path): Written by ``torch.save``.
        map_location (str or torch.device, optional): Where tensors go.
            Defaults to ``'cpu'``.

    Raises:
        Exception: One of many kinds, if the file is damaged or holds anything
            else.
    """
    with ZipFile(path) as archive:  # torch itself reads over flipped bits
        damaged = archive.testzip()
    if damaged is not None:
        raise BadZipFile(f'checksum of {damaged}')
    return torch.load(path, map_location=map_location, weights_only=True)
