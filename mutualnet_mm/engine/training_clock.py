# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""How long a training took, over all of its runs."""

import time
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS

_KEY = 'training_seconds'


@HOOKS.register_module()
class TrainingClock(Hook):
    """Keeps in each checkpoint how many seconds it took to train it.

    A resumed run goes on counting from its checkpoint, so that iterations
    which were lost when it was stopped do not count. Validation between
    epochs counts, the last one does not.
    """

    # Before CheckpointHook, which is VERY_LOW.
    priority = 'NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Start, or go on: a resumed run has loaded its checkpoint."""
        self._start = time.perf_counter() - training_seconds(runner)

    def after_train_iter(self, runner: Runner, *args: Any, **kw: Any) -> None:
        """Note the time; the message hub goes into the checkpoint."""
        seconds = time.perf_counter() - self._start
        runner.message_hub.update_info(_KEY, seconds)


def training_seconds(runner: Runner) -> float:
    """Return the seconds that a :class:`TrainingClock` counted, 0 so far."""
    return runner.message_hub.get_info(_KEY, 0.0)
