# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The errors that a user can put right."""


class UsageError(ValueError):
    """Something that the user gave cannot be used: a value, a file, a call.

    The message is one line, names what was found and says what to do; our
    tools print it as it is, without a traceback.
    """


class ConfigError(UsageError):
    """A setting of a config, or an argument that stands for one, is wrong."""


def first_line(error: BaseException) -> str:
    """Say in one line what went wrong: its first line, or else its kind."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(filter(None, lines), type(error).__name__)
