# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Data sets as hooks of the stock projects leave them in mid-training."""

import copy
from typing import Any, Iterator, Tuple

from mmengine.config import Config
from mmengine.dataset import Compose

from ..config.pipelines import Step

# The default of YOLOXModeSwitchHook.
_MIXING = ('Mosaic', 'RandomAffine', 'MixUp')


def switch_to_last(dataset: Any, cfg: Config) -> None:
    """Switch a data set as the hooks of a whole training would have done.

    What is calibrated after a training is read as what was calibrated in its
    last validation.

    Args:
        dataset: Built, a wrapper or not; changed in place.
        cfg (Config): Its ``custom_hooks`` count, as far as its ``train_cfg``
            lets them act.
    """
    for kind, hook in _hooks(cfg):
        if kind == 'PipelineSwitchHook':
            if _is_reached(cfg, hook['switch_epoch'] + 1):
                dataset.pipeline = _composed(hook['switch_pipeline'])
        elif kind == 'YOLOXModeSwitchHook':
            if hasattr(dataset, 'update_skip_type_keys'):
                keys = hook.get('skip_type_keys', _MIXING)
                dataset.update_skip_type_keys(keys)
        elif kind == 'SwitchRecipeHook':
            recipes = [
                recipe
                for recipe in hook['schedule']
                if recipe.get('train_pipeline')
                and _is_reached(cfg, recipe['action_epoch'])
            ]
            if recipes:
                last = max(recipes, key=lambda recipe: recipe['action_epoch'])
                _switch(dataset, _composed(last['train_pipeline']))


def _hooks(cfg: Config) -> Iterator[Tuple[str, dict]]:
    for hook in cfg.get('custom_hooks') or ():
        if isinstance(hook, dict):
            yield Step('', hook).kind, hook


def _is_reached(cfg: Config, epoch: int) -> bool:
    """Whether a training has an epoch of this number, from 1."""
    settings = cfg.get('train_cfg')
    if not settings:  # of a training that the config does not describe
        return True
    return epoch <= (settings.get('max_epochs') or 0)


def _composed(steps: Any) -> Compose:
    return Compose(copy.deepcopy(steps))


def _switch(dataset: Any, pipeline: Compose) -> None:
    """Give data sets in wrappers another pipeline, too."""
    if hasattr(dataset, 'pipeline'):
        dataset.pipeline = pipeline
    elif hasattr(dataset, 'dataset'):
        _switch(dataset.dataset, pipeline)
    else:
        for inner in getattr(dataset, 'datasets', ()):
            _switch(inner, pipeline)
