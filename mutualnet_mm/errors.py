# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The one exception for whatever a user can put right."""


class ConfigError(ValueError):
    """A value that the user gave is wrong.

    The message is one line, names the value and says what to do; our tools
    print it as it is, without a traceback.
    """


def first_line(error: BaseException) -> str:
    """Say in one line what went wrong: its first line, or else its kind."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(filter(None, lines), type(error).__name__)
