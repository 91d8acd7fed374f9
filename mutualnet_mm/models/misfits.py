# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Weights of a model that a checkpoint leaves as they were initialised."""

import logging
from itertools import accumulate
from typing import (
    Any,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import UsageError
from ..slimmable.private_affines import fill_private
from .published_file import is_published


def find_misfit(
    model: nn.Module, weights: Mapping[str, Tensor]
) -> Optional[str]:
    """Name the first weight of a model that is missing or of another shape.

    Returns:
        str or None: Such as ``'it has no conv1.weight'``; None if all fit.
        Counters of batches do not count: other frameworks have none.
    """
    return next((why for _, why in misfits(model, weights)), None)


def misfits(
    model: nn.Module, weights: Mapping[str, Tensor]
) -> Iterator[Tuple[str, str]]:
    """Yield the weights that stay as they were initialised, and why.

    Args:
        model (nn.Module): It is not changed.
        weights (Mapping): A ``state_dict``.

    Yields:
        tuple: Name, and such as ``'it has no conv1.weight'``.
    """
    own = model.state_dict()
    if all(getattr(weights.get(k), 'shape', 0) == own[k].shape for k in own):
        return
    fitted = _fitted(model, weights)
    for name, value in own.items():
        found = fitted.get(name)
        if found is None and name not in weights:
            if not name.endswith('num_batches_tracked'):
                yield name, f'it has no {name}'
        elif found is not None and found.shape != value.shape:
            yield (
                name,
                f'{name} is {tuple(found.shape)}, the model has '
                f'{tuple(value.shape)}',
            )


def published_hint(weights: Any) -> str:
    """What an error adds where weights are the published code's; else ''."""
    if not is_published(weights):
        return ''
    return '; it is of the published code: convert it by mutualnet convert'


def _fitted(model: nn.Module, weights: Mapping[str, Tensor]) -> dict:
    """Weights as the model's own hooks change them before they are loaded.

    Transformers interpolate position embeddings of another size.
    """
    fitted = dict(weights)
    fill_private(model, fitted)
    for name, module in model.named_modules():
        prefix = f'{name}.' if name else ''
        for hook in module._load_state_dict_pre_hooks.values():
            hook(fitted, prefix, {}, True, [], [], [])
    return fitted


def check_backbone_filled(
    model: nn.Module, weights: Mapping[str, Tensor]
) -> List[str]:
    """Refuse weights that leave most of a backbone as it was initialised.

    What is trained from another task's checkpoint has a new head, or a new
    neck; a backbone may have a few new layers. Weights of nothing but the
    model's other parts are loaded on purpose: they pass.

    Args:
        model (nn.Module): With a ``backbone``. It is not changed.
        weights (Mapping): A ``state_dict``.

    Returns:
        list[str]: Weights of the model that have another shape there.

    Raises:
        UsageError: If fewer than half of the backbone's weights are there, in
            their shapes.
    """
    left = dict(misfits(model, weights))
    backbone = [n for n in _learned(model) if _lies_in(n, 'backbone')]
    filled = [name for name in backbone if name not in left]
    others = set(model.state_dict()).difference(backbone)
    is_part = bool(weights) and others.issuperset(weights)
    if 2 * len(filled) < len(backbone) and not is_part:
        kind = type(model).__name__
        some = 'none' if not filled else f'only {len(filled)}'
        raise UsageError(
            f'{some} of the {len(backbone)} weights of the {kind}.backbone '
            f'({backbone[0]}, ...) are in the checkpoint '
            f'({next(iter(weights), "none")}, ...) in their shapes, and '
            'training or testing would start from random ones: '
            + (
                published_hint(weights)[2:]
                or 'give a checkpoint of this model, or load a backbone by '
                "backbone.init_cfg=dict(type='Pretrained', checkpoint=...)"
            )
        )
    return [name for name in left if name in weights]


def warn_of_random(model: nn.Module, names: Sequence[str]) -> None:
    """Name the weights that a checkpoint leaves as they were initialised.

    Args:
        model (nn.Module): That they are of.
        names (Sequence[str]): As in its ``state_dict``. Of modules that stay
            so altogether, the module is named.
    """
    own, random = _learned(model), set(names)
    # The shortest part of a name under which nothing was loaded.
    places = {
        next(
            part
            for part in accumulate(name.split('.'), '{}.{}'.format)
            if random.issuperset(n for n in own if _lies_in(n, part))
        ): None
        for name in names
    }
    print_log(
        f'{len(names)} of {len(own)} weights of the {type(model).__name__} '
        'are not in the checkpoint in their shapes and stay as they are: '
        f'{", ".join(places)}',
        logger='current',
        level=logging.WARNING,
    )


def _learned(model: nn.Module) -> List[str]:
    """Names in a ``state_dict``, without counters of batches."""
    names = model.state_dict()
    return [n for n in names if not n.endswith('num_batches_tracked')]


def _lies_in(name: str, place: str) -> bool:
    return f'{name}.'.startswith(f'{place}.')
