# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What differs between the tasks, one file each."""

from importlib import import_module
from typing import Any, Callable, Type, Union

from ...errors import ConfigError
from ...registry import ClassTable
from .base import Task

_TASKS: ClassTable = ClassTable()
_SUPPORTED = (
    'ImageClassifier of mmpretrain, detectors of images of mmdet, '
    'Recognizer2D and Recognizer3D of mmaction2, and what register_task() adds'
)


def register_task(
    base: Union[str, type], task: Union[str, Type[Task], None] = None
) -> Any:
    """Say which task the models of a stock base class have.

    Subclasses of ``base`` have it too, unless one of them has its own.

    Args:
        base (str or type): Base class of the models, such as
            ``'BaseSegmentor'``. The name alone imports nothing.
        task (type or str, optional): Subclass of :class:`Task`, or the path
            of one, ``'package.module.ClassName'``, which is imported when the
            first model of ``base`` is built. Defaults to None: a decorator.

    Returns:
        ``task``, or the decorator.

    Example:
        >>> @register_task('BaseSegmentor')
        ... class SegmentationTask(Task): ...
    """
    if task is None:
        decorator: Callable = _TASKS.registering(base)
        return decorator
    _TASKS.register(base, task)
    return task


register_task(
    'BaseClassifier', f'{__name__}.classification.ClassificationTask'
)
register_task('BaseDetector', f'{__name__}.detection.DetectionTask')
register_task('Recognizer3D', f'{__name__}.action.ActionTask')
register_task('Recognizer2D', f'{__name__}.segments.SegmentsTask')


def find_task(model_class: type) -> Type[Task]:
    """Return the task of a stock model's class, by its bases.

    Its file is imported only here, so that each of the three projects stays
    optional.

    Args:
        model_class (type): Stock, or made of a stock class.

    Raises:
        ConfigError: If no base of the class is registered.
    """
    found = _TASKS.find(model_class)
    if found is None:
        name = getattr(model_class, 'stock_class', model_class).__name__
        if any(
            base.__name__ == 'BaseMOTModel' for base in model_class.__mro__
        ):
            raise ConfigError(
                f'wraps={name!r} follows what a detector finds: train that '
                "one, type='mutualnet_mm.MutualLearning', and track with it"
            )
        raise ConfigError(
            f'wraps={name!r} cannot be trained by mutual learning: use one '
            f'of {_SUPPORTED}'
        )
    if isinstance(found, str):
        module, _, name = found.rpartition('.')
        found = getattr(import_module(module), name)
    return found


def check_backbone(model_class: Any, backbone: Any) -> None:
    """Refuse a model without a backbone, before anything is built.

    Such as SoftTeacher, or wrappers of timm and Hugging Face.

    Args:
        model_class (type): Made of a stock class.
        backbone: Settings that it is given.

    Raises:
        ConfigError: Names the model, and what is supported.
    """
    if backbone is None:
        name = model_class.stock_class.__name__
        if any(b.__name__ == 'SemiBaseDetector' for b in model_class.__mro__):
            raise ConfigError(
                f'wraps={name!r} holds a student and a teacher, and has no '
                "backbone of its own: use type='SemiBaseDetector', which "
                'trains its student by loss(), and make the detector inside '
                "adaptive, detector=dict(type='mutualnet_mm.MutualLearning', "
                'wraps=...)'
            )
        raise ConfigError(
            f'wraps={name!r} is given no '
            f'model.backbone, which is what gets slimmed: use one of '
            f'{_SUPPORTED}'
        )


__all__ = ['Task', 'check_backbone', 'find_task', 'register_task']
