# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What differs between the tasks, one file each."""

from importlib import import_module
from typing import Type

from torch import nn

from ...errors import ConfigError
from .base import Task

_TASKS = dict(
    BaseDetector=('.detection', 'DetectionTask'),
    BaseClassifier=('.classification', 'ClassificationTask'),
    Recognizer3D=('.action', 'ActionTask'),
)


def find_task(model: nn.Module) -> Type[Task]:
    """Return the task class for a stock model, by its base class.

    Imported only here, so that each of the three projects stays optional.

    Raises:
        ConfigError: If the model is of no known kind.
    """
    for cls in type(model).__mro__:
        if cls.__name__ in _TASKS:
            file, name = _TASKS[cls.__name__]
            return getattr(import_module(file, __name__), name)
    raise ConfigError(
        f'wraps={type(model).stock_class.__name__!r} is no classifier of '
        'mmpretrain, detector of mmdet or Recognizer3D of mmaction2'
    )


__all__ = ['Task', 'find_task']
