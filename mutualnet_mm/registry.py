# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Registries: children of mmengine's, so that every project finds us.

``type='mutualnet_mm.MutualLearning'`` works in the configs of mmpretrain,
mmdet and mmaction2 once ``custom_imports`` names ``mutualnet_mm``.
"""

from typing import Any, Callable, Dict, Generic, Optional, TypeVar, Union

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mutualnet_mm',
    locations=['mutualnet_mm.models'],
)
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope='mutualnet_mm',
    locations=['mutualnet_mm.datasets'],
)
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mutualnet_mm',
    locations=['mutualnet_mm.engine'],
)
LOOPS = Registry(
    'loop',
    parent=MMENGINE_LOOPS,
    scope='mutualnet_mm',
    locations=['mutualnet_mm.engine'],
)

T = TypeVar('T')


class ClassTable(Generic[T]):
    """What is registered for a class holds for its subclasses too.

    Classes may be given by name alone, so that the project that one lives in
    need not be installed.
    """

    def __init__(self) -> None:
        self._values: Dict[Union[str, type], T] = {}

    def register(self, base: Union[str, type], value: T) -> None:
        """Keep ``value`` for ``base``, in place of an earlier one."""
        self._values[base] = value

    def registering(self, base: Union[str, type]) -> Callable[[Any], Any]:
        """Return a decorator that registers what it is put on."""

        def register(value: Any) -> Any:
            self.register(base, value)
            return value

        return register

    def find(self, cls: type) -> Optional[T]:
        """Return what holds for ``cls``: its own, else of the nearest base."""
        for base in cls.__mro__:
            for key in (base, base.__name__):
                if key in self._values:
                    return self._values[key]
        return None
