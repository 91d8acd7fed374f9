# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The model of a config, and the subnets that the config names."""

from copy import deepcopy
from typing import List

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from ..errors import ConfigError
from ..subnet import Subnet
from . import MutualLearningMixin


def build_model(cfg: Config) -> MutualLearningMixin:
    """Build the model of a config alone: no weights loaded, no data needed.

    Args:
        cfg (Config): As :func:`~.config.load_config` returns it.

    Raises:
        ConfigError: If the model has no subnets.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    settings = deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):  # as the runner does
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(settings)
    if not isinstance(model, MutualLearningMixin):
        raise ConfigError(
            f'model.type={cfg.model.type!r} has no subnets: use type='
            "'mutualnet_mm.MutualLearning'"
        )
    return model


def listed_subnets(cfg: Config, model: MutualLearningMixin) -> List[Subnet]:
    """Subnets that a config tests, by default those of its test loop.

    Raises:
        ConfigError: If one is outside of what the model is trained for.
    """
    listed = (cfg.get('test_cfg') or {}).get('subnets')
    return model.sampler.choose(listed)
