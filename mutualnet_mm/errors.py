# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The errors that a user can put right."""

import sys
from contextlib import contextmanager
from typing import Any, Iterator, Type


class UsageError(ValueError):
    """Something that the user gave cannot be used: a value, a file, a call.

    The message is one line, names what was found and says what to do; our
    tools print it as it is, without a traceback.
    """


class UnreadableError(UsageError):
    """A file that the user gave holds nothing that can be used."""


class ConfigError(UsageError):
    """A setting of a config, or an argument that stands for one, is wrong."""


def check_count(value: Any, name: str) -> int:
    """Return ``value`` if it is a whole number from 1.

    Args:
        value: What the user gave.
        name (str): What the error calls it, such as ``'batch_size'``.

    Raises:
        UsageError: Names the value.
    """
    if not is_count(value):
        raise UsageError(f'{name}={value!r}: use a whole number from 1')
    return value


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: Any) -> bool:
    """Whether a value is a number that is finite as a float."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def first_line(error: BaseException) -> str:
    """Say in one line what went wrong: its first line, or else its kind."""
    lines = [line.strip() for line in str(error).splitlines()]
    if lines and lines[0].startswith('Failed to import custom modules'):
        cause: BaseException = error
        while str(cause).startswith('Failed to import') and cause.__context__:
            cause = cause.__context__
        return (
            f'custom_imports cannot be imported ({cause}): install what is '
            'missing, or put the folder that holds it on PYTHONPATH'
        )
    return next(filter(None, lines), type(error).__name__)


@contextmanager
def as_usage_error(
    what: str, kind: Type[UsageError] = UsageError
) -> Iterator[None]:
    """Say in one line what failed, whatever the ``with`` block raises.

    For what runs the user's code, such as a config. A UsageError passes as it
    is.

    Args:
        what (str): Such as ``"config 'a.py' cannot be read"``.
        kind (type): Class of the error. Defaults to UsageError.

    Raises:
        UsageError: ``what``, then name and first line of the error.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise kind(
            f'{what}: {type(error).__name__}: {first_line(error)}'
        ) from error
