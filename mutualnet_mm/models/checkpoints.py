# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Checkpoints, checked and loaded strictly.

The stock loaders take what fits and only log the rest: a wrong file then
trains or tests random weights without an error.
"""

import logging
import math
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    find_latest_checkpoint,
)
from torch import Tensor, nn

from ..config.init_cfg import InitCfg, init_configs
from ..errors import ConfigError, UsageError
from ..slimmable.importance import check_measure
from ..tensor_files import load_checkpoint, why_unread
from .misfits import check_backbone_filled, find_misfit, published_hint
from .resolution_norms import check_same_norms

# Keys of what mutualnet table writes for deployment.
_ADAPTIVE = {'schema', 'weights', 'table'}
# Of whole models, also as a parallel wrapper saves them.
_PREFIXES = ('backbone.', 'module.backbone.', 'module.')
_PRETRAINED = ('checkpoint', 'prefix', 'map_location', 'sort')
_CLASSIFIERS = ('fc.', 'classifier.', 'head.')


def split_pretrained(
    init_cfg: InitCfg,
) -> Tuple[InitCfg, Optional[Dict[str, Any]]]:
    """Split ``init_cfg`` into the stock part and the ``Pretrained`` part.

    Returns:
        tuple: What the stock class shall have (None: its own default), and
        the arguments of :func:`load_backbone` or None.

    Raises:
        ConfigError: If ``Pretrained`` has a setting that there is not.
    """
    rest: List[Mapping[str, Any]] = []
    pretrained = None
    for config in init_configs(init_cfg):
        config = dict(config)
        if config.get('type') not in ('Pretrained', PretrainedInit):
            rest.append(config)
        elif config.get('checkpoint') is not None:
            pretrained = {k: v for k, v in config.items() if k != 'type'}
            unknown = [k for k in pretrained if k not in _PRETRAINED]
            if unknown:
                raise ConfigError(
                    f'init_cfg=Pretrained has {unknown[0]!r}, which is none '
                    f'of its settings: {", ".join(_PRETRAINED)}'
                )
        else:
            split_sort(config)  # there is nothing to sort
            print_log(
                'init_cfg=Pretrained names no checkpoint: training starts '
                'from scratch',
                logger='current',
                level=logging.WARNING,
            )
    return rest or None, pretrained


def split_sort(
    pretrained: Mapping[str, Any],
) -> Tuple[Dict[str, Any], Optional[str]]:
    """Take ``sort`` out of the settings of a ``Pretrained`` ``init_cfg``.

    Raises:
        ConfigError: If there is no such measure, or no checkpoint.
    """
    rest = dict(pretrained)
    by = rest.pop('sort', None)
    if by is not None and rest.get('checkpoint') is None:
        raise ConfigError(
            f'init_cfg=Pretrained has sort={by!r}, but names no checkpoint '
            'whose channels could be sorted'
        )
    return rest, None if by is None else check_measure(by)


def load_backbone(
    backbone: nn.Module,
    checkpoint: str,
    prefix: Optional[str] = None,
    map_location: Optional[str] = 'cpu',
) -> None:
    """Load all weights of a backbone from a stock or mutually trained file.

    Args:
        backbone (nn.Module): To be filled.
        checkpoint (str): Path or URL that mmengine can load.
        prefix (str, optional): Prefix of the backbone's keys in the file.
            Defaults to ``'backbone.'``, with or without ``'module.'`` before
            it, where the file has such keys, else to none.
        map_location (str, optional): Defaults to ``'cpu'``.

    Raises:
        UsageError: If the file is missing or damaged, lacks a weight of the
            backbone, has it in another shape or with a value that is not
            finite. Weights that the backbone
            does not have are ignored and named in the log, but for a
            classifier's (``fc``, ``classifier``, ``head``).
    """
    weights, _ = _read(checkpoint, 'pretrained checkpoint', map_location)
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
    name = f'pretrained checkpoint {checkpoint!r}'
    check_finite(weights, name)
    ignored = load_strictly(backbone, weights, name, may_hold_more=True)
    print_log(
        f'{type(backbone).__name__}: all weights loaded from {checkpoint}',
        logger='current',
    )
    if ignored:
        print_log(
            f'{name} holds {len(ignored)} weights that the '
            f'{type(backbone).__name__} does not have, which are ignored: '
            f'{", ".join(ignored[:5])}{", ..." * (len(ignored) > 5)}',
            logger='current',
            level=logging.WARNING,
        )


def load_strictly(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    name: str,
    may_hold_more: bool = False,
    assign: bool = False,
) -> List[str]:
    """Load weights, or say in one line what does not fit.

    Args:
        model (nn.Module): To be filled; nothing is changed where an error is
            raised.
        weights (Mapping): A ``state_dict``.
        name (str): What errors call the weights, such as a file.
        may_hold_more (bool): Whether weights that ``model`` does not have are
            ignored. Defaults to False.
        assign (bool): Take the given tensors in place of copying them, as
            ``nn.Module.load_state_dict`` does. Defaults to False.

    Returns:
        list[str]: Names of the weights that were ignored.

    Raises:
        UsageError: Names the first weight that does not fit.
    """
    wrong = find_misfit(model, weights)
    own = model.state_dict()
    surplus = [key for key in weights if key not in own]
    if wrong is None and surplus and not may_hold_more:
        wrong = f'it has {surplus[0]}, which the model does not'
    if wrong is not None:
        raise UsageError(
            f'{name} does not fit the {type(model).__name__}: {wrong}'
            f'{published_hint(weights)}'
        )
    model.load_state_dict(weights, strict=False, assign=assign)
    return surplus


def check_finite(weights: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights with a NaN or an infinity: every score would be wrong.

    Args:
        weights (Mapping): A ``state_dict``.
        name (str): Where they come from, for the error.

    Raises:
        UsageError: Names the first one.
    """
    for key, value in weights.items():
        if (
            isinstance(value, Tensor)
            and value.layout is torch.strided  # no network has others
            and value.is_floating_point()
            and value.numel()
            and not all(map(math.isfinite, _extremes(value)))
        ):
            raise UsageError(
                f'{key} of {name} is not finite: every score would be wrong; '
                'take an earlier checkpoint'
            )


def _extremes(value: Tensor) -> Tuple[Tensor, Tensor]:
    """The least and the largest value, both NaN where any is."""
    try:
        return value.aminmax()  # makes no copy
    except RuntimeError:  # PyTorch 2.1, in half precision on a CPU
        return value.float().aminmax()


def _read(
    path: str, name: str, map_location: Optional[str] = 'cpu'
) -> Tuple[Any, Dict[str, Any]]:
    """Weights of a file or address, of the model itself or in a checkpoint.

    And ``meta``, which is empty where there is none.
    """
    content = read_content(path, name, map_location)
    if isinstance(content, dict) and content.keys() >= _ADAPTIVE:
        raise UsageError(
            f'{name} {path!r} is an adaptive file, for deployment: give the '
            'checkpoint of the training that it was made of'
        )
    weights, meta = content, None
    if isinstance(content, dict) and 'state_dict' in content:
        weights, meta = content['state_dict'], content.get('meta')
    if not isinstance(weights, dict) or _is_mixed(weights):
        raise UsageError(f'{name} {path!r} is not a checkpoint')
    return weights, meta if isinstance(meta, dict) else {}


def _is_mixed(weights: Mapping[Any, Any]) -> bool:
    """Whether only some values are weights, but for what modules add."""
    kinds = {
        isinstance(key, str) and isinstance(value, Tensor)
        for key, value in weights.items()
        if not str(key).endswith('_extra_state')
    }
    return len(kinds) > 1


def read_content(
    path: str, name: str, map_location: Optional[str] = 'cpu'
) -> Any:
    """Read a checkpoint as it is: a file with its checksums, or an address.

    Args:
        path (str): Whatever mmengine can load.
        name (str): What errors call it.
        map_location (str, optional): Defaults to ``'cpu'``.

    Raises:
        UsageError: If it is missing or damaged, or holds more than
            ``weights_only`` takes (:func:`~.tensor_files.load_checkpoint`).
    """
    try:
        if Path(path).is_file():
            return load_checkpoint(path, map_location)
        return CheckpointLoader.load_checkpoint(
            path, map_location, logger='silent'
        )
    except Exception as error:  # each storage and format has its own
        raise UsageError(
            f'{name} {path!r} cannot be read: {why_unread(path, error)}'
        ) from error


def check_exists(path: str) -> None:
    """Refuse a checkpoint file that is not there; addresses pass.

    Raises:
        UsageError: Names the file.
    """
    if '://' not in path and not Path(path).is_file():
        raise UsageError(f'checkpoint {path!r} does not exist')


def check_resumed(cfg: Config, model: nn.Module) -> None:
    """Refuse a checkpoint that training cannot start from, or go on from.

    Args:
        cfg (Config): Its ``resume``, ``load_from`` and ``work_dir`` count, as
            the runner takes them.
        model (nn.Module): That is to be trained.

    Raises:
        UsageError: If the file is missing or damaged; if training is to go on
            from it, and it leaves a weight as it was initialised or has
            batch norms of other resolutions; if training is to start from it,
            and :func:`~.misfits.check_backbone_filled` refuses it.
    """
    path = cfg.get('load_from')
    if path is None and cfg.get('resume'):
        path = find_latest_checkpoint(cfg.work_dir)
    if path is None:
        return
    if cfg.get('resume'):
        weights = _trained_weights(path, model)
        metadata = getattr(weights, '_metadata', {}).get('', {})
        check_same_norms(model, metadata)  # so early for this tool alone
    else:  # of another task, maybe
        weights, _ = read_trained(path)
        check_finite(weights, f'checkpoint {path!r}')
        try:
            check_backbone_filled(model, weights)
        except UsageError as error:
            raise UsageError(f'checkpoint {path!r}: {error}') from error


def check_checkpoint(path: str, model: nn.Module) -> None:
    """Refuse a checkpoint that leaves any weight as it was initialised.

    The runner only logs what does not fit. Weights that the model does not
    have do not matter.

    Args:
        path (str): File or address.
        model (nn.Module): That the checkpoint is for. It is not changed.

    Raises:
        UsageError: Names the file and the first weight that does not fit, or
            is not finite.
    """
    _trained_weights(path, model)


def load_trained(model: nn.Module, path: str) -> List[str]:
    """Load all weights of a model from a checkpoint.

    Args:
        model (nn.Module): To be filled.
        path (str): File or address of stock training or mutual learning.

    Returns:
        list[str]: Names of weights that the model does not have.

    Raises:
        UsageError: As :func:`check_checkpoint`.
    """
    found = _trained_weights(path, model)
    return load_strictly(
        model, found, f'checkpoint {path!r}', may_hold_more=True
    )


def _trained_weights(path: str, model: nn.Module) -> Dict[str, Tensor]:
    """Weights of a checkpoint that fits, as they are called in the model."""
    weights, _ = read_trained(path)
    wrong = find_misfit(model, weights)
    if wrong is not None:
        raise UsageError(
            f'checkpoint {path!r} does not fit the config: {wrong}'
            f'{published_hint(weights)}'
        )
    check_finite(weights, f'checkpoint {path!r}')
    return weights


def read_trained(path: str) -> Tuple[Dict[str, Tensor], Dict[str, Any]]:
    """Read the weights of a whole model, and the notes of its training.

    Args:
        path (str): File or address.

    Returns:
        tuple: A ``state_dict`` without the name of a parallel wrapper, whose
        ``_metadata`` say at which widths it was trained
        (:mod:`.trained_widths`); and ``meta``.

    Raises:
        UsageError: If the file is missing or damaged.
    """
    check_exists(path)
    weights, meta = _read(path, 'checkpoint')
    found: Any = OrderedDict((_inside(k), v) for k, v in weights.items())
    said = getattr(weights, '_metadata', {})
    found._metadata = {_inside(key): value for key, value in said.items()}
    return found, meta


def _inside(name: str) -> str:
    """Without the name of a parallel wrapper."""
    return re.sub(r'^module(\.|$)', '', name)
