# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What stock code raises for a slip in a config or a broken file, in one line.

MMEngine and the projects let Python's own errors pass, which users meet as
tracebacks. Only errors that a config or a file causes are taken here; all
others are left alone.
"""

import errno
import re
from contextlib import contextmanager
from difflib import get_close_matches
from traceback import walk_tb
from types import FrameType
from typing import Iterator, List, Optional

from ..errors import ConfigError, UsageError, first_line
from ..registry import HOOKS, LOOPS, MODELS, TRANSFORMS

_NO_SUCH_TYPE = re.compile(r'(\S+) is not in the (\S+) registry')
_NO_TYPE = re.compile('must contain the key "type"')
_WRONG_ARGUMENT = re.compile(r'\(\) (got an unexpected|missing \d+ required)')
# Stock functions that call a constructor with what a config says.
_BUILDS = (
    *('build_from_cfg', 'build_dataloader'),
    *('build_train_loop', 'build_val_loop', 'build_test_loop'),
)
# A process that loads data puts its traceback, with this text, before it.
_NO_IMAGE = re.compile(r'(?s:.*)failed to load image: (.+)')
_NO_PACKAGE = re.compile(r'is not installed, please|Please try to install')
_NO_FILES = re.compile(r'Found 0 files in subfolders of: (.+?)\. ')


_TAKEN = (
    *(KeyError, TypeError, ValueError, AssertionError, RuntimeError),
    *(ImportError, OSError),
)
# Of a disk: it is full, or files of it are not for this user.
_OF_DISKS = ('ENOSPC', 'EDQUOT', 'EFBIG', 'EROFS', 'EACCES', 'EPERM')


@contextmanager
def named_stock_errors() -> Iterator[None]:
    """Name what of a config or its data stock code cannot use.

    Raises:
        ConfigError: In place of such an error of the ``with`` block.
    """
    try:
        yield
    except _TAKEN as error:
        text = explain(error)
        if text is None:
            raise
        raise ConfigError(text) from error


def explain(error: BaseException) -> Optional[str]:
    """Say in one line what a config or file has done; None if it has not."""
    text = str(error)
    if isinstance(error, UsageError):
        return None  # says all of it
    if isinstance(error, OSError):
        return _of_disk(error)
    if isinstance(error, KeyError):
        if _NO_TYPE.search(text) is not None:
            first = str(error.args[0]).partition('\n')[0]
            return f'{first}: correct the config'
        found = _NO_SUCH_TYPE.search(text)
        if found is None:
            return None
        written, registry = found[1].strip('\'"'), found[2]
        return f'type={written!r} is not in the {registry} registry: ' + (
            _nearest(written)
        )
    constructors = _failed_constructors(error)
    is_argument = _WRONG_ARGUMENT.search(text) is not None
    if (
        isinstance(error, TypeError)
        and is_argument
        and constructors is not None
    ):
        if "'wraps'" in text:
            return (
                f"{first_line(error)}: what has wraps is of type='mutualnet_"
                "mm.MutualLearning', or of type='mutualnet_mm.Slimmable' if "
                'it is a backbone'
            )
        if "'sort'" in text and 'Pretrained' in text:
            return (
                f'{first_line(error)}: channels are sorted by the init_cfg of '
                "a model of type='mutualnet_mm.MutualLearning', or of its "
                "backbone of type='mutualnet_mm.Slimmable'"
            )
        return f'{first_line(error)}: correct the config'
    is_refused = isinstance(error, (TypeError, ValueError, AssertionError))
    if is_refused and constructors and text:
        # Of the class that the config names, not of one of its bases.
        built = type(constructors[0].f_locals.get('self')).__name__
        return (
            f'{built} cannot be built as set: {first_line(error)}: correct '
            'the config'
        )
    image = _NO_IMAGE.search(text)
    if isinstance(error, AssertionError) and image is not None:
        return (
            f'image {image[1]!r} cannot be read: replace the file, or take it '
            'out of the data set'
        )
    if isinstance(error, (ImportError, RuntimeError)) and (
        _NO_PACKAGE.search(text) is not None
    ):
        return first_line(error)
    folder = _NO_FILES.search(text)
    if isinstance(error, RuntimeError) and folder is not None:
        return (
            f'no image was found in the subfolders of {folder[1]}: check '
            'data_root and data_prefix of the data set'
        )
    return None


def _of_disk(error: OSError) -> Optional[str]:
    code = errno.errorcode.get(error.errno or 0)
    if code not in _OF_DISKS:
        return None
    name = 'a file' if error.filename is None else repr(error.filename)
    if code in ('EACCES', 'EPERM'):
        return f'{name} cannot be opened: {error.strerror}'
    return (
        f'{name} cannot be written: {error.strerror}; make room or name '
        'another folder, and go on: what was finished before is kept'
    )


def _nearest(written: str) -> str:
    """Propose one of our types for one that does not exist."""
    names = [
        name
        for registry in (MODELS, TRANSFORMS, HOOKS, LOOPS)
        for name in registry.module_dict
    ]
    near = get_close_matches(written.rpartition('.')[2], names, 1)
    if near:
        return f"did you mean 'mutualnet_mm.{near[0]}'?"
    return 'correct it, or import what registers it by custom_imports'


def _failed_constructors(error: BaseException) -> Optional[List[FrameType]]:
    """Find the constructors that an error ended, the outermost one first.

    Constructors pass arguments on to those of their bases, so the last calls
    are theirs alone, from where a config is built on. None if that is not so:
    then it is not the config that they could not take.
    """
    calls = [frame for frame, _ in walk_tb(error.__traceback__)]
    found: List[FrameType] = []
    while calls and calls[-1].f_code.co_name == '__init__':
        found.insert(0, calls.pop())
    return found if calls and calls[-1].f_code.co_name in _BUILDS else None
