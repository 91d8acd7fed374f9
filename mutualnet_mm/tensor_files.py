# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Files of ``torch.save``, proven whole before anything in them is used."""

import io
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Dict, Optional, Union
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor

from .errors import first_line

_PLAIN = (str, int, float, bool, bytes, type(None))
# Values that nested containers may stand for; they share what they repeat.
_MOST_VALUES = 10**8
_FOLDER = 0x10
# The one function among those that torch calls without asking which makes
# something of a size that the file only names.
_UNBOUNDED = re.compile(rb'c(__builtin__|builtins)\nbytearray\n')


def save_tensors(content: Any, file: IO[bytes]) -> None:
    """``torch.save``, with the error of the file if it cannot be written.

    Args:
        content: What to write. It is held in memory a second time.
        file (IO): Open for writing, see :func:`~.files.atomic_write`.

    Raises:
        OSError: Such as that the disk is full; ``torch.save`` itself would
            raise a RuntimeError that does not say so.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    file.write(buffer.getbuffer())


def load_tensors(
    path: Union[str, Path],
    map_location: Optional[Union[str, torch.device]] = 'cpu',
) -> Any:
    """Read a file of tensors and plain containers.

    No code in it is run, and nothing is made that is larger than the file.

    Args:
        path (str or Path): Written by :func:`save_tensors`.
        map_location (str or torch.device, optional): Where tensors go.
            Defaults to ``'cpu'``.

    Raises:
        Exception: One of many kinds, if the file is damaged or holds anything
            else.
    """
    check_archive(path)
    content = torch.load(path, map_location=map_location, weights_only=True)
    _check_plain(content, os.path.getsize(path))
    return content


def load_checkpoint(
    path: Union[str, Path],
    map_location: Optional[Union[str, torch.device]] = 'cpu',
) -> Any:
    """Read a checkpoint, such as one of MMEngine's runner.

    Only what ``weights_only`` takes is read, with the values that MMEngine's
    checkpoints hold besides, see :mod:`.compat`. A torch that cannot be told
    of those (before 2.4) reads them as the stock runner does there: by a full
    unpickling, which runs what the file says.

    Args:
        path (str or Path): File in the format of today's ``torch.save``, or
            in that of before torch 1.6, which has no checksums.
        map_location (str or torch.device, optional): Where tensors go.
            Defaults to ``'cpu'``.

    Raises:
        Exception: One of many kinds, if the file is damaged or holds anything
            else.
    """
    check_intact(path)
    safe = hasattr(torch.serialization, 'add_safe_globals')
    return torch.load(path, map_location=map_location, weights_only=safe)


def why_unread(path: str, error: Exception) -> str:
    """What is wrong with a checkpoint, in words that are not torch's own.

    Those advise to unpickle in full, which runs what the file says.

    Args:
        path (str): File, or an address.
        error (Exception): What reading it raised.
    """
    with suppress(OSError), open(path, 'rb') as file:  # or no file at all
        begins = file.read(16)
        if not begins:
            return 'it is empty'
        if not begins.startswith((b'PK', b'\x80')):
            shown = begins.decode('ascii', 'replace').split('\n')[0]
            return (
                f'it begins with {shown!r}, as no checkpoint does: fetch it '
                'again'
            )
    # What a damaged archive raises depends on the damage.
    with suppress(Exception), ZipFile(path) as archive:
        if any('/code/' in part for part in archive.namelist()):
            return (
                'it is a TorchScript program: give the checkpoint of the '
                'training'
            )
    if 'weights_only' in str(error):
        return (
            'it holds more than tensors and plain values, which could run '
            "code: save the model's state_dict() instead"
        )
    return first_line(error)


def check_intact(path: Union[str, Path]) -> None:
    """Compare a file of ``torch.save`` with its checksums, if it has some.

    Raises:
        BadZipFile: As :func:`check_archive`.
    """
    with open(path, 'rb') as file:
        begins = file.read(4) == b'PK\3\4'
    if begins or is_zipfile(path):
        check_archive(path)


def check_archive(path: Union[str, Path]) -> None:
    """Refuse an archive of ``torch.save`` that is damaged, or unpacks to more.

    torch itself reads over flipped bits.

    Args:
        path (str or Path): Of the format since torch 1.6.

    Raises:
        BadZipFile: If a checksum is wrong, or a part is compressed, a folder
            or listed twice, as ``torch.save`` never does it.
    """
    with ZipFile(path) as archive:
        parts = archive.infolist()
        if (
            any(part.compress_type != ZIP_STORED for part in parts)
            # torch leaves what is marked as a folder as its memory was.
            or any(part.external_attr & _FOLDER for part in parts)
            or len({part.filename for part in parts}) < len(parts)
            or sum(part.file_size for part in parts) > os.path.getsize(path)
        ):
            raise BadZipFile('compressed or repeated parts, or folders')
        damaged = archive.testzip()
        if damaged is not None:
            raise BadZipFile(f'checksum of {damaged}')
        for part in parts:
            if part.filename.endswith('data.pkl') and _UNBOUNDED.search(
                archive.read(part)
            ):
                raise BadZipFile(f'bytearray in {part.filename}')


def _check_plain(content: Any, size: int) -> None:
    """Refuse what is no plain container, or stands for more than its file.

    Args:
        content: As loaded.
        size (int): Bytes of the file.

    Raises:
        TypeError: If there is another kind of value or of tensor.
        ValueError: If a tensor or a container is larger.
    """
    counts: Dict[int, int] = {}  # of the values inside each container

    def count(value: Any) -> int:
        if isinstance(value, _PLAIN):
            return 1
        if isinstance(value, Tensor):
            _check_tensor(value, size)
            return 1
        if id(value) not in counts:
            if isinstance(value, dict):
                inside = [*value, *value.values()]
            elif isinstance(value, (list, tuple, set)):
                inside = [*value]
            else:
                raise TypeError(f'{type(value).__name__} is no plain value')
            counts[id(value)] = 1 + sum(map(count, inside))
            if counts[id(value)] > _MOST_VALUES:
                raise ValueError(f'more than {_MOST_VALUES} values')
        return counts[id(value)]

    count(content)


def _check_tensor(value: Tensor, size: int) -> None:
    if value.layout != torch.strided or value.is_quantized:
        raise TypeError(f'a tensor of layout {value.layout}')
    if value.is_meta:
        raise TypeError('a tensor without values')
    if value.numel() * value.element_size() > size:
        raise ValueError(
            f'a tensor of shape {tuple(value.shape)} in a file of {size} bytes'
        )
