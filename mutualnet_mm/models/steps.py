# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The number of a training step, which says what subnets are drawn."""

from typing import Optional

from mmengine.logging import MessageHub


class StepCounter:
    """Numbers training steps alike on all ranks and in a resumed run.

    The runner's own counter is followed as long as it moves. Steps that a
    loop of one's own makes, without a runner or after it, are counted here.

    Attributes:
        step (int): The last one; -1 before the first.
    """

    def __init__(self) -> None:
        self.step = -1
        self._seen: Optional[int] = None
        self._repeats = 0

    @property
    def length(self) -> Optional[int]:
        """int or None: Steps of the whole training, as the runner says it."""
        length = MessageHub.get_current_instance().runtime_info.get(
            'max_iters'
        )
        return None if length is None else int(length)

    def next(self) -> int:
        """Begin a step and return its number."""
        hub = MessageHub.get_current_instance()
        runs = int(hub.get_info('iter')) if 'iter' in hub.runtime_info else 0
        self._repeats = self._repeats + 1 if runs == self._seen else 0
        self._seen = runs
        self.step = runs + self._repeats
        return self.step
