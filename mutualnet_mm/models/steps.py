# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The number of a training step, which says what subnets are drawn."""

from typing import Dict, Optional

from mmengine.logging import MessageHub


class StepCounter:
    """Numbers training steps alike on all ranks and in a resumed run.

    The runner's own counter is followed as long as it moves. Steps that a
    loop of one's own makes, without a runner or after it, are counted here.
    Of several runners in a process, that of the last one is MMEngine's
    current one, whichever trains: it is the one that moves that counts.

    Attributes:
        step (int): The last one; -1 before the first.
    """

    def __init__(self) -> None:
        self.step = -1
        self._hub: Optional[str] = None  # by name, so that models are copied
        self._seen: Dict[str, int] = {}
        self._repeats = 0

    @property
    def length(self) -> Optional[int]:
        """int or None: Steps of the whole training, as the runner says it."""
        hub = MessageHub.get_instance(self._hub) if self._hub else _current()
        length = hub.runtime_info.get('max_iters')
        return None if length is None else int(length)

    def next(self, is_loaded: bool = False) -> int:
        """Begin a step and return its number.

        Args:
            is_loaded (bool): Whether weights were loaded since the last one,
                so that it may be of a training that goes on. Defaults to
                False.
        """
        counts = _counts()
        moved = [
            n for n, count in counts.items() if self._seen.get(n) != count
        ]
        is_first, self._seen = self._hub is None, counts
        current = _current().instance_name
        own = current if self._hub is None else self._hub
        if is_first:
            own = _first(counts, current, is_loaded)
        elif moved and own not in moved:
            own = current if current in moved else moved[-1]
        is_still = not is_first and own not in moved
        self._hub = own
        self._repeats = self._repeats + 1 if is_still else 0
        self.step = counts.get(own, 0) + self._repeats
        return self.step


def _current() -> MessageHub:
    return MessageHub.get_current_instance()


def _first(counts: Dict[str, int], current: str, is_loaded: bool) -> str:
    """Name of the hub of the runner that begins to train.

    Args:
        counts (dict): As :func:`_counts` gives them.
        current (str): Name of MMEngine's current hub.
        is_loaded (bool): Whether the training may go on from another one.
    """
    if counts.get(current) == 0:
        return current
    # Others have trained before it, or are built and do not train.
    going = [name for name in counts if not _is_finished(name)]
    if current in going and is_loaded:
        return current
    begin = [name for name, count in counts.items() if count == 0]
    new = [name for name in begin if name in going] or begin
    if new:
        return new[-1]
    is_other = is_loaded or current not in counts
    return going[-1] if going and is_other else current


def _is_finished(name: str) -> bool:
    told = MessageHub.get_instance(name).runtime_info
    length = told.get('max_iters')
    return length is not None and told['iter'] >= length - 1


def _counts() -> Dict[str, int]:
    """Iterations of all runners that have trained, by the name of their hub.

    MMEngine offers one of them by its name alone.
    """
    return {
        name: int(hub.get_info('iter'))
        for name, hub in MessageHub._instance_dict.items()
        if 'iter' in hub.runtime_info
    }
