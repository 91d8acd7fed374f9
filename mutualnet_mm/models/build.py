# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The model of a config, and the subnets that the config names."""

import inspect
from copy import deepcopy
from typing import Any, Dict, List, Optional

from mmengine.config import Config
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..config.stock_errors import named_stock_errors
from ..errors import ConfigError, as_usage_error
from ..subnet import Subnet
from . import MutualLearningMixin
from .checkpoints import split_pretrained


def build_model(cfg: Config) -> MutualLearningMixin:
    """Build the model of a config alone: no weights loaded, no data needed.

    Args:
        cfg (Config): As :func:`~.config.load_config` returns it.

    Raises:
        ConfigError: If the model has no subnets, or if a type or an argument
            does not exist.
    """
    model = _build(cfg)
    if not isinstance(model, MutualLearningMixin):
        raise ConfigError(
            f'model.type={cfg.model.type!r} has no subnets: use type='
            "'mutualnet_mm.MutualLearning'"
        )
    return model


def unwrapped(model: nn.Module, keep_tta: bool = False) -> nn.Module:
    """Return the model that a runner has wrapped.

    Args:
        model (nn.Module): ``runner.model``, in a parallel wrapper or in a
            model of test-time augmentation or not.
        keep_tta (bool): Whether the latter stays. Defaults to False.
    """
    while is_model_wrapper(model) or (
        isinstance(model, BaseTTAModel) and not keep_tta
    ):
        model = model.module
    return model


def build_stock(cfg: Config) -> nn.Module:
    """Build the model of a stock config alone, without pretrained weights.

    Args:
        cfg (Config): It is not changed.

    Raises:
        ConfigError: If the model cannot be built, such as for a type that
            does not exist; says why.
    """
    with as_usage_error('the stock model cannot be built', ConfigError):
        return _build(without_weights(cfg))


def _build(cfg: Config) -> nn.Module:
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    settings = deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):  # as the runner does
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    with named_stock_errors():
        return MODELS.build(settings)


def without_weights(cfg: Config) -> Config:
    """Return a copy of a config whose model loads and downloads no weights.

    Other initialisations stay.
    """
    cfg = deepcopy(cfg)
    cfg.load_from = None
    _drop_weights(cfg.model)
    return cfg


def _drop_weights(part: Any) -> None:
    if isinstance(part, (list, tuple)):
        for item in part:
            _drop_weights(item)
    if not isinstance(part, dict):
        return
    for key, value in list(part.items()):
        if key == 'init_cfg' and value is not None:
            # Without a type where a class loads the weights itself (PVT).
            others = split_pretrained(value)[0] or []
            part[key] = [c for c in others if 'checkpoint' not in c] or None
        elif _names_weights(key, value):
            part[key] = None
        else:
            _drop_weights(value)


def _names_weights(key: str, value: Any) -> bool:
    """Whether a setting is a checkpoint: a file, a URL, ``'torchvision://'``."""
    named = key == 'pretrained' or key.endswith(('_ckpt', 'checkpoint'))
    return named and isinstance(value, str)


def listed_subnets(cfg: Config, model: MutualLearningMixin) -> List[Subnet]:
    """Subnets that a config tests, by default those of its test loop.

    Raises:
        ConfigError: If one is outside of what the model is trained for.
    """
    listed = (cfg.get('test_cfg') or {}).get('subnets')
    return model.sampler.choose(listed)


def without_teacher(settings: Dict[str, Any], model: Any) -> Dict[str, Any]:
    """Drop from a model's settings what only learning from a teacher needs.

    Detectors that learn by distillation build a teacher from a config and a
    checkpoint of its own. They predict as the class that they are built on,
    the first that takes no teacher.

    Args:
        settings (dict): ``cfg.model``. It is not changed.
        model (MutualLearningMixin): As built from it.

    Returns:
        dict: Settings of a model that predicts the same.
    """
    of_teacher = {name for name in settings if 'teacher' in name}
    if not of_teacher:
        return settings
    kept = {k: v for k, v in settings.items() if k not in of_teacher}
    for base in type(model).stock_class.__mro__:
        taken = inspect.signature(base.__init__).parameters
        if not any('teacher' in name for name in taken):
            name = registered_name(base, settings.get('_scope_'))
            return dict(kept, wraps=name)
    return settings


def registered_name(stock: type, scope: Optional[str]) -> str:
    """Name a model class as a config does.

    Args:
        stock (type): Registered or not.
        scope (str, optional): The config's ``default_scope``.

    Returns:
        str: Such as ``'ResNet'``, of another scope ``'mmdet.ResNet'``; the
        path to import where the class is not registered.
    """
    registries = sorted(
        (MODELS, *MODELS.children.values()), key=lambda r: r.scope != scope
    )
    for registry in registries:
        for name, registered in registry.module_dict.items():
            if registered is stock:
                prefix = (
                    '' if registry.scope == scope else f'{registry.scope}.'
                )
                return f'{prefix}{name}'
    return f'{stock.__module__}.{stock.__qualname__}'
