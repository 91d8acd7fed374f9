# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Where data pipelines draw their random numbers from."""

import random
from typing import Any, Optional, Tuple

import numpy as np
import torch


class OwnRandomState:
    """A random state of its own for some ``with`` blocks.

    Inside of a block Python, NumPy and PyTorch (on the CPU, where data is
    made) draw from it, beginning at a fixed seed and going on from block to
    block; after each they draw as if it had not been.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._state: Optional[Tuple] = None
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = random_state()
        if self._state is not None:
            set_random_state(self._state)
            return
        random.seed(self._seed)
        np.random.seed(self._seed)
        # ``torch.manual_seed`` would reach generators on a GPU, too.
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        self._state = random_state()
        set_random_state(self._before)


def random_state() -> Tuple:
    """That of Python, NumPy and PyTorch on the CPU, where data is made."""
    return (
        random.getstate(),
        np.random.get_state(),
        torch.default_generator.get_state(),
    )


def set_random_state(state: Tuple) -> None:
    """Let them draw as from a state of :func:`random_state`."""
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.default_generator.set_state(state[2])
