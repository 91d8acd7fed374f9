# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Networks that draw random numbers in every pass."""

from contextlib import contextmanager
from typing import Iterator

import numpy as np


@contextmanager
def same_draws() -> Iterator[None]:
    """Let NumPy draw the same numbers in every such ``with`` block.

    To compare two passes of a network that draws, as TRN does the frames that
    it relates. Afterwards NumPy draws as if the block had not been.
    """
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
