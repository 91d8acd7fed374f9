# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What stock code raises for a slip in a config or a broken file, in one line.

MMEngine and the projects let Python's own errors pass, which users meet as
tracebacks. Only errors that a config or a file causes are taken here; all
others are left alone.
"""

import re
from contextlib import contextmanager
from difflib import get_close_matches
from traceback import extract_tb
from typing import Iterator, Optional

from ..errors import ConfigError, first_line
from ..registry import HOOKS, LOOPS, MODELS, TRANSFORMS

_NO_SUCH_TYPE = re.compile(r'(\S+) is not in the (\S+) registry')
_WRONG_ARGUMENT = re.compile(r'\(\) (got an unexpected|missing \d+ required)')
# A process that loads data puts its traceback, with this text, before it.
_NO_IMAGE = re.compile(r'(?s:.*)failed to load image: (.+)')
_NO_PACKAGE = re.compile(r'is not installed, please|Please try to install')
_NO_FILES = re.compile(r'Found 0 files in subfolders of: (.+?)\. ')


_TAKEN = (KeyError, TypeError, AssertionError, RuntimeError, ImportError)


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
    if isinstance(error, KeyError):
        found = _NO_SUCH_TYPE.search(text)
        if found is None:
            return None
        written, registry = found[1].strip('\'"'), found[2]
        return f'type={written!r} is not in the {registry} registry: ' + (
            _nearest(written)
        )
    if isinstance(error, TypeError) and _is_of_arguments(error):
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


def _is_of_arguments(error: TypeError) -> bool:
    """Whether a config has given a class what its constructor cannot take.

    Constructors pass arguments on to those of their bases, so the last calls
    are theirs alone, from the registry's on.
    """
    if _WRONG_ARGUMENT.search(str(error)) is None:
        return False
    calls = [call.name for call in extract_tb(error.__traceback__)]
    while calls and calls[-1] == '__init__':
        calls.pop()
    return bool(calls) and calls[-1] == 'build_from_cfg'
