# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""One width for all parts of a model, proven when it is built."""

from collections import OrderedDict
from typing import Any, Dict, Optional, Tuple

from torch import nn

from ..errors import ConfigError
from ..slimmable import (
    LayerRule,
    SlimLayer,
    convert,
    slim_states,
    verify_slicing,
)
from ..slimmable.channels import check_rounding
from ..slimmable.convert import stock_name
from ..slimmable.known import KnownChannels
from .backbones.stages import give_stages, trial_widths
from .feature_path import SIDE, feature_path, goes_its_own_way
from .head_state import behind_backbone


def share_width(
    model: Any,
    rounding: Optional[str],
    known: Optional[KnownChannels] = None,
) -> bool:
    """Let what follows the backbone take the channels that come.

    It stays at full width; batch norms get the subnet's statistics. The state
    of the backbone becomes that of all parts, and of the model.

    Args:
        model (MutualLearningMixin): With its space and task; changed in
            place.
        rounding (str, optional): Policy that turns widths into channels.
            None leaves the backbone's.
        known (KnownChannels, optional): What was found of such a model
            before. Defaults to None: it is traced.

    Returns:
        bool: Whether ``known`` was right, so that nothing was traced.

    Raises:
        ConfigError: If the backbone is not slimmable or not wide enough, or
            if channels are mixed up.
    """
    backbone: Any = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'slim_state'):
        name = type(backbone).__name__
        raise ConfigError(
            f'model.backbone is a plain {name}: use type='
            f"'mutualnet_mm.Slimmable', wraps={name!r}"
        )
    model.slim_state = state = slim_states(backbone)[0]
    if model.space.max_width > state.max_width:
        raise ConfigError(
            f'{model.space} goes beyond '
            f"the backbone's max_width={state.max_width}: build a wider "
            'backbone and set its max_width'
        )
    if rounding is not None:
        state.rounding = check_rounding(rounding)
    for part in behind_backbone(model):
        convert(part, state, default=LayerRule(fixed=True), strict=False)
    state.set_width(model.space.max_width)
    model.task.prepare(model)
    if model.space.stages > 1:
        give_stages(backbone, model.space.stages)
    if known is not None and known.give(model):
        return True
    if backbone.slim_joints is None:  # in the hope that they were known
        backbone.slim_joints = backbone.verify_slicing()
    _verify(model)
    return False


def _verify(model: Any) -> None:
    """Refuse a backbone, neck or head that mixes up channels."""
    parts, settings = sliced_parts(model)
    settings.update(trial_widths(model.space.stages))
    try:
        joints = verify_slicing(parts, **settings)
    except ConfigError:
        model.backbone.verify_slicing()  # says so if it is the one
        raise
    if not joints.lead:
        last = settings.get('name') or stock_name(parts)
        raise ConfigError(
            f'{last} hands on channels that several layers make, which '
            'heads cannot take: put a neck between them, such as FPN'
        )
    if not joints.whole and model.task.runs_heads(model):
        settings.update(name=stock_name(model), size=SIDE)
        parts = feature_path(model)
        verify_slicing(parts, **settings)
    _mark_outside(model, parts, with_heads=joints.whole)


def _mark_outside(
    model: nn.Module, parts: nn.Module, with_heads: bool
) -> None:
    """Let layers that were not proven refuse what narrows.

    Heads take maps that are whole; what takes others goes another way. Where
    maps narrow, heads behind proposals are believed to take them as they are.
    """
    proven = {*parts.modules()}
    for name, layer in model.named_modules():
        is_head = name.partition('.')[0].endswith('head')
        is_outside = isinstance(layer, SlimLayer) and layer not in proven
        if is_outside and (with_heads or not is_head):
            layer.slim_unproven = name


def sliced_parts(model: Any) -> Tuple[nn.Module, Dict[str, Any]]:
    """The parts of a model whose layers follow the width, in one module.

    Args:
        model (MutualLearningMixin): With its task.

    Returns:
        tuple: The backbone, a sequence of it and what follows it, or the
        model's own :func:`~.feature_path.feature_path`; and how it is tried,
        as :func:`~...slimmable.verify_slicing` takes it.
    """
    backbone, rest = model.backbone, model.task.downstream(model)
    settings: Dict[str, Any] = dict(frames=backbone.trial_frames)
    names = [stock_name(m) for m in rest.values() if [*m.parameters()]]
    if goes_its_own_way(model):
        settings.update(name=stock_name(model), size=SIDE)
        return feature_path(model), settings
    if not names:
        return backbone, settings
    settings.update(name=' or '.join(names), size=SIDE)
    return nn.Sequential(OrderedDict(backbone=backbone, **rest)), settings
