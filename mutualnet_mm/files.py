# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Files that are there whole or not at all."""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Iterator, Optional, Union
from zipfile import BadZipFile, ZipFile

import torch


@contextmanager
def atomic_write(path: Union[str, Path]) -> Iterator[IO[bytes]]:
    """Open a draft that takes the place of ``path`` when all is written.

    Whatever interrupts the ``with`` block, also the loss of power, leaves the
    file that was there before. The draft, ``<name>.part`` in the same folder,
    is written over by the next attempt.

    Args:
        path (str or Path): File to write.
    """
    path = Path(path)
    draft = path.with_name(f'{path.name}.part')
    with draft.open('wb') as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


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
        Exception: Of many kinds, if the file is damaged or holds anything
            else.
    """
    with ZipFile(path) as archive:  # torch itself reads over flipped bits
        damaged = archive.testzip()
    if damaged is not None:
        raise BadZipFile(f'checksum of {damaged}')
    return torch.load(path, map_location=map_location, weights_only=True)
