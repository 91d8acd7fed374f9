# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Checkpoints, checked before hours of work with them."""

from pathlib import Path

from mmengine.runner import CheckpointLoader
from torch import nn

from ..errors import ConfigError


def check_exists(path: str) -> None:
    """Refuse a checkpoint file that is not there; addresses pass.

    Raises:
        ConfigError: Names the file.
    """
    if '://' not in path and not Path(path).is_file():
        raise ConfigError(f'checkpoint {path!r} does not exist')


def check_checkpoint(path: str, model: nn.Module) -> None:
    """Refuse a checkpoint that leaves any weight as it was initialised.

    The runner only logs what does not fit. Weights that the model does not
    have are no obstacle.

    Args:
        path (str): File or address.
        model (nn.Module): That the checkpoint is for. It is not changed.

    Raises:
        ConfigError: Names the file and the first weight that does not fit.
    """
    check_exists(path)
    try:
        content = CheckpointLoader.load_checkpoint(
            path, 'cpu', logger='silent'
        )
    except Exception as error:  # what it raises depends on the damage
        raise ConfigError(
            f'checkpoint {path!r} cannot be read: {type(error).__name__}'
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f'{path!r} is no checkpoint')
    found = {
        name[len('module.') :] if name.startswith('module.') else name: value
        for name, value in content.get('state_dict', content).items()
    }
    for name, value in model.state_dict().items():
        # Checkpoints of other frameworks lack the counters of batch norms.
        if name.endswith('num_batches_tracked'):
            continue
        if name not in found:
            raise ConfigError(
                f'checkpoint {path!r} does not fit the config: it has no '
                f'{name}'
            )
        if found[name].shape != value.shape:
            raise ConfigError(
                f'checkpoint {path!r} does not fit the config: {name} is '
                f'{tuple(found[name].shape)}, the model has '
                f'{tuple(value.shape)}'
            )
