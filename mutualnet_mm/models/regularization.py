# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What keeps the full network from over-fitting, which small ones never do."""

from contextlib import contextmanager
from typing import Any, Iterator, List, Tuple

from torch import nn

from ..errors import ConfigError, is_number

# Settings of label smoothing, of torch, of mmpretrain's LabelSmoothLoss and of
# mmaction2's heads, and the attribute that acts.
_SMOOTHING = {
    'label_smoothing': 'label_smoothing',
    'label_smooth_val': '_eps',
    'label_smooth_eps': 'label_smooth_eps',
}
# Batches mixed by the data preprocessors of mmpretrain and mmaction2.
_MIXING = ('batch_augments', 'blending')


@contextmanager
def unregularized(model: nn.Module) -> Iterator[None]:
    """Leave dropout, drop path and label smoothing out in a ``with`` block.

    Args:
        model (nn.Module): Afterwards as it was before.
    """
    dropping = [m for m in _dropping(model) if m.training]
    smoothing = [(m, name, getattr(m, name)) for m, name in _smoothing(model)]
    try:
        for module in dropping:
            # Of itself alone: a block that drops may hold batch norms.
            module.training = False
        for module, name, _ in smoothing:
            setattr(module, name, 0.0)
        yield
    finally:
        for module in dropping:
            module.training = True
        for module, name, value in smoothing:
            setattr(module, name, value)


def check_regularized(model: nn.Module, learns_labels: bool) -> None:
    """Refuse a model of which nothing can be left out for its subnets.

    Args:
        model (nn.Module): As built.
        learns_labels (bool): Whether its subnets learn from labels.

    Raises:
        ConfigError: If there is nothing, or if what there is, mixed labels,
            cannot be.
    """
    check_unmixed(model, learns_labels)
    smoothing = learns_labels and _smoothing(model)
    if not smoothing and not _dropping(model):
        raise ConfigError(
            "mutual.regularize='full': the subnets of this model learn "
            'without dropout, drop path and smoothed labels already; leave '
            'it out'
        )


def check_unmixed(model: nn.Module, learns_labels: bool) -> None:
    """Refuse batches that are mixed, where subnets learn from labels.

    Args:
        model (nn.Module): A recipe may change while it is trained.
        learns_labels (bool): Whether its subnets learn from labels.

    Raises:
        ConfigError: Names the setting.
    """
    preprocessor = getattr(model, 'data_preprocessor', None)
    found = {name: getattr(preprocessor, name, None) for name in _MIXING}
    # Those of detectors are modules, which pad or resize.
    mixing = [
        name
        for name, value in found.items()
        if value is not None and not isinstance(value, nn.Module)
    ]
    if mixing and learns_labels:
        raise ConfigError(
            f"mutual.regularize='full': data_preprocessor.{mixing[0]} mixes "
            'images and labels before there are subnets, which learn from '
            "labels here: leave it out, or set supervision='kl' and "
            'label_weight=0'
        )


def _dropping(model: nn.Module) -> List[nn.Module]:
    """Modules that drop something by chance, or have a rate of it."""
    return [
        module
        for module in model.modules()
        if any(
            'drop' in name.lower() and is_number(value) and value > 0
            for name, value in _named_rates(module)
        )
    ]


def _named_rates(module: nn.Module) -> Iterator[Tuple[str, Any]]:
    for name, value in vars(module).items():
        # Of torch's Dropout, and others that call it so.
        yield (type(module).__name__ if name == 'p' else name), value


def _smoothing(model: nn.Module) -> List[Tuple[nn.Module, str]]:
    """Modules that smooth labels, and the name of the share."""
    return [
        (module, acts)
        for module in model.modules()
        for setting, acts in _SMOOTHING.items()
        if is_number(vars(module).get(setting)) and vars(module)[setting] > 0
    ]
