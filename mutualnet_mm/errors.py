# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The one exception for whatever a user can put right."""


class ConfigError(ValueError):
    """A value that the user gave is wrong.

    The message is one line, names the value and says what to do; our tools
    print it as it is, without a traceback.
    """
