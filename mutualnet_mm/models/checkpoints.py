# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Checkpoints, checked and loaded strictly.

The stock loaders take what fits and only log the rest: a wrong file then
trains or tests random weights without an error.
"""

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ..errors import UsageError

InitCfg = Union[dict, List[dict], None]
# Of a whole model, and of what a parallel wrapper saved.
_PREFIXES = ('backbone.', 'module.backbone.', 'module.')
_CLASSIFIERS = ('fc.', 'classifier.', 'head.')


def split_pretrained(
    init_cfg: InitCfg,
) -> Tuple[InitCfg, Optional[Dict[str, Any]]]:
    """Split ``init_cfg`` into the stock part and the ``Pretrained`` part.

    Returns:
        tuple: What the stock class shall have (None: its own default), and
        the arguments of :func:`load_backbone` or None.
    """
    if init_cfg is None:
        return None, None
    configs = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg)
    rest, pretrained = [], None
    for config in configs:
        config = dict(config)
        if config.get('type') not in ('Pretrained', PretrainedInit):
            rest.append(config)
        elif config.get('checkpoint') is not None:
            pretrained = {k: v for k, v in config.items() if k != 'type'}
        else:
            print_log(
                'init_cfg=Pretrained names no checkpoint: training starts '
                'from scratch',
                logger='current',
                level=logging.WARNING,
            )
    return rest or None, pretrained


def load_backbone(
    backbone: nn.Module,
    checkpoint: str,
    prefix: Optional[str] = None,
    map_location: Optional[str] = 'cpu',
) -> None:
    """Load the weights of a stock or mutually trained checkpoint strictly.

    Args:
        backbone (nn.Module): To be filled.
        checkpoint (str): Path or URL that mmengine can load.
        prefix (str, optional): Of the backbone's keys in the file. Defaults
            to ``'backbone.'``, with or without ``'module.'`` before it, where
            the file has such keys, else to none.
        map_location (str, optional): Defaults to ``'cpu'``.

    Raises:
        UsageError: If the file is missing or damaged, or if keys or shapes
            differ; a classifier's keys (``fc``, ``classifier``, ``head``)
            are left out.
    """
    weights = _read(checkpoint, map_location)
    if prefix is None:
        prefix = next(
            (p for p in _PREFIXES if any(k.startswith(p) for k in weights)),
            '',
        )
    elif prefix and not prefix.endswith('.'):
        prefix += '.'
    # The rounding policy lies in the metadata.
    metadata = getattr(weights, '_metadata', {})
    weights = OrderedDict(
        (key[len(prefix) :], value)
        for key, value in weights.items()
        if key.startswith(prefix)
        and not key[len(prefix) :].startswith(_CLASSIFIERS)
    )
    weights._metadata = {  # type: ignore[attr-defined]
        f'{key}.'[len(prefix) : -1]: value
        for key, value in metadata.items()
        if f'{key}.'.startswith(prefix)
    }
    try:
        backbone.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise UsageError(
            f'pretrained checkpoint {checkpoint!r} does not fit the '
            f'{type(backbone).__name__}: {" ".join(lines[1:])[:300]}'
        ) from error
    print_log(
        f'{type(backbone).__name__}: all weights loaded from {checkpoint}',
        logger='current',
    )


def _read(checkpoint: str, map_location: Optional[str]) -> Any:
    try:
        loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location)
        weights = loaded.get('state_dict', loaded)
        weights.items()
    except Exception as error:  # each storage and format has its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(
            f'pretrained checkpoint {checkpoint!r} cannot be loaded: {reason}'
        ) from error
    return weights


def check_exists(path: str) -> None:
    """Refuse a checkpoint file that is not there; addresses pass.

    Raises:
        UsageError: Names the file.
    """
    if '://' not in path and not Path(path).is_file():
        raise UsageError(f'checkpoint {path!r} does not exist')


def check_checkpoint(path: str, model: nn.Module) -> None:
    """Refuse a checkpoint that leaves any weight as it was initialised.

    The runner only logs what does not fit. Weights that the model does not
    have are no obstacle.

    Args:
        path (str): File or address.
        model (nn.Module): That the checkpoint is for. It is not changed.

    Raises:
        UsageError: Names the file and the first weight that does not fit.
    """
    check_exists(path)
    try:
        content = CheckpointLoader.load_checkpoint(
            path, 'cpu', logger='silent'
        )
    except Exception as error:  # what it raises depends on the damage
        raise UsageError(
            f'checkpoint {path!r} cannot be read: {type(error).__name__}'
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f'{path!r} is no checkpoint')
    found = {
        name[len('module.') :] if name.startswith('module.') else name: value
        for name, value in content.get('state_dict', content).items()
    }
    for name, value in model.state_dict().items():
        # Checkpoints of other frameworks lack the counters of batch norms.
        if name.endswith('num_batches_tracked'):
            continue
        if name not in found:
            raise UsageError(
                f'checkpoint {path!r} does not fit the config: it has no '
                f'{name}'
            )
        if found[name].shape != value.shape:
            raise UsageError(
                f'checkpoint {path!r} does not fit the config: {name} is '
                f'{tuple(found[name].shape)}, the model has '
                f'{tuple(value.shape)}'
            )
