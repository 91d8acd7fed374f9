# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Arguments of our own backbones, checked before anything is built."""

import math
from typing import Any

from ...errors import ConfigError


def check_factors(network: str, **factors: Any) -> None:
    """Refuse factors that are not positive, finite numbers.

    Raises:
        ConfigError: Names the network, the argument and the value.
    """
    for name, value in factors.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not 0 < value < math.inf
        ):
            raise ConfigError(
                f'{network}({name}={value!r}): use a positive number'
            )


def check_out_indices(network: str, out_indices: Any, number: int) -> None:
    """Refuse anything but a list of existing stages.

    Raises:
        ConfigError: Names the network and the value.
    """
    if not isinstance(out_indices, (list, tuple)) or not set(
        out_indices
    ) <= set(range(number)):
        raise ConfigError(
            f'{network}(out_indices={out_indices!r}): use a list of 0 to '
            f'{number - 1}'
        )
