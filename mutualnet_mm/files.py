# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Files that are there whole or not at all."""

import csv
import io
import logging
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Iterator, Mapping, Sequence, Union

from filelock import FileLock, Timeout
from mmengine.logging import print_log

from .errors import ConfigError, UsageError, first_line

_QUIET = 5
"""Seconds to wait for another writer without a word."""


@contextmanager
def atomic_write(
    path: Union[str, Path], suffix: str = '.part'
) -> Iterator[IO[bytes]]:
    """Open a draft that takes the place of ``path`` when all is written.

    Whatever interrupts the ``with`` block, also the loss of power, leaves the
    file that was there before. Each writer has a draft of its own in the same
    folder, which an error or an interruption removes; of two writers the last
    one to finish is the one whose file stays. A symbolic link stays one: the
    file that it points to is replaced.

    Args:
        path (str or Path): File to write.
        suffix (str): Of the draft's name, for those who read it by its kind
            within the ``with`` block. Defaults to ``'.part'``.

    Raises:
        UsageError: If it cannot be written: its folder is missing, or it is
            a folder or a device such as ``/dev/null``. So does an ``OSError``
            in the ``with`` block, such as that of a full disk.
    """
    target = check_target(path)
    draft = target.with_name(f'{target.name}.{secrets.token_hex(4)}{suffix}')
    try:
        with draft.open('xb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, draft)
        os.replace(draft, target)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _refusal(path, _reason(error)) from error
        raise


@contextmanager
def only_writer(path: Union[str, Path]) -> Iterator[None]:
    """Keep other processes from changing a file that is read and rewritten.

    Those that use this function wait for each other; a hidden lock file stays
    beside ``path``. It does not nest: a second one inside of the first waits
    for ever.

    Args:
        path (str or Path): File that the ``with`` block reads and writes.

    Raises:
        UsageError: As for :func:`atomic_write`.
    """
    target = check_target(path)
    lock = FileLock(str(target.with_name(f'.{target.name}.lock')))
    try:
        try:
            held = lock.acquire(timeout=_QUIET)
        except Timeout:
            print_log(
                f'waiting for another process that writes {str(path)!r}: it '
                f'holds {lock.lock_file!r}',
                logger='current',
                level=logging.WARNING,
            )
            held = lock.acquire()
    except OSError as error:
        raise _refusal(path, _reason(error)) from error
    with held:
        yield


@contextmanager
def only_user(folder: Union[str, Path], wait: float = 15) -> Iterator[None]:
    """Keep other processes that use this function out of a folder.

    However a process ends, it lets go; a hidden lock file stays in the folder.
    Where the file system knows no locks, nothing is kept out.

    Args:
        folder (str or Path): That the ``with`` block works in.
        wait (float): Seconds to wait for another one to end. The data
            loaders of a process that was killed live on for some seconds and
            hold what it held. Defaults to 15.

    Raises:
        UsageError: If another process, or this one, is at work there.
    """
    lock = FileLock(str(Path(folder) / '.lock'))
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise UsageError(
            f'another process works in {str(folder)!r}: wait until it has '
            'ended, or name another folder'
        ) from error
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        lock.release()


def check_target(path: Union[str, Path]) -> Path:
    """Refuse what no file can be written to, before the work for it.

    Args:
        path (str or Path): File to write.

    Returns:
        Path: The file itself, behind links.

    Raises:
        UsageError: If its folder is missing or takes no files, or it is no
            ordinary file.
    """
    target = Path(os.path.realpath(path))
    if not os.path.isdir(target.parent):
        raise _refusal(path, f'make the folder {str(target.parent)!r} first')
    if os.path.isdir(target):
        raise _refusal(path, 'it is a folder, name a file')
    try:
        with TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise _refusal(path, _reason(error)) from error
    # Of /dev/stdout, the shell may have made a link to a file.
    special = Path(os.path.abspath(path)).parent == Path('/dev')
    if special or (os.path.exists(path) and not os.path.isfile(path)):
        raise _refusal(path, 'it is not an ordinary file, name another one')
    return target


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):  # such as in /proc
        return 'no file or folder can be made there'
    return error.strerror or first_line(error)


def check_apart(
    path: Union[str, Path], source: Union[str, Path], name: str
) -> Path:
    """Refuse, as :func:`check_target` does, and to write over the source.

    Args:
        path (str or Path): File to be written.
        source (str or Path): File that it is made from.
        name (str): What the source is, for the error.

    Returns:
        Path: As there.

    Raises:
        UsageError: If it cannot be written, or is the source.
    """
    target = check_target(path)
    if target == Path(source).resolve():
        raise UsageError(
            f'{str(path)!r} is {name} itself, which would be lost: name '
            'another file'
        )
    return target


def _refusal(path: Union[str, Path], reason: str) -> UsageError:
    return UsageError(f'{str(path)!r} cannot be written: {reason}')


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
            f'folder {str(path)!r} cannot be made: {_reason(error)}; name '
            'another'
        ) from error
    return path


@contextmanager
def output_folder(path: Union[str, Path]) -> Iterator[Path]:
    """Make a folder for what the ``with`` block writes.

    If the block fails before it has written anything, what was made is
    removed again.

    Args:
        path (str or Path): What the user named.

    Yields:
        Path: ``path``.

    Raises:
        ConfigError: As :func:`make_folder` does.
    """
    path = Path(path)
    made = [one for one in (path, *path.parents) if not one.exists()]
    try:
        yield make_folder(path)
    except BaseException:
        with suppress(OSError):  # the first that is not empty ends it
            for one in made:
                one.rmdir()
        raise


def csv_text(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Write rows as a table for spreadsheets, a column for each key.

    Args:
        rows (Sequence[Mapping]): Values by column, in the order in which
            columns come up.
    """
    names = {name: None for row in rows for name in row}
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, list(names), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
