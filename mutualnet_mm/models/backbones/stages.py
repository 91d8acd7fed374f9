# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Stages of a backbone that may each have a width of their own."""

from dataclasses import replace
from itertools import count, takewhile
from typing import Any, Dict, List

from torch import nn

from ...errors import ConfigError
from ...slimmable.convert import stock_name
from ...slimmable.slim_layer import SlimLayer
from ...widths import stage_widths


def give_stages(backbone: Any, number: int) -> None:
    """Tell the layers of a slimmable backbone in which stage they are.

    The stem is in the first one, and what follows the last stage in that.

    Args:
        backbone (nn.Module): Its layers and its state are changed.
        number (int): Of its stages.

    Raises:
        ConfigError: If it has another number of them, or none that are known.
    """
    stages = _stages(backbone)
    if len(stages) != number:
        raise ConfigError(
            f'mutual.stages={number}: {stock_name(backbone)} has '
            f'{len(stages) or "no"} stages that are known, which are '
            "'layer1', 'layer2', ... or those of a VGG"
        )
    stage = 0
    numbers = {m: i for i, part in enumerate(stages) for m in part}
    for layer in backbone.modules():  # in the order of the pass
        stage = numbers.get(layer, stage)
        if isinstance(layer, SlimLayer):
            layer.slim_rule = replace(layer.slim_rule, stage=stage)
    backbone.slim_state.stages = number


def _stages(backbone: Any) -> List[List[nn.Module]]:
    """Modules of each stage."""
    if hasattr(backbone, 'range_sub_modules'):  # of VGG
        layers = [*getattr(backbone, backbone.module_name)]
        return [layers[slice(*ends)] for ends in backbone.range_sub_modules]
    parts = (getattr(backbone, f'layer{n}', None) for n in count(1))
    return [[part] for part in takewhile(lambda part: part is not None, parts)]


def trial_widths(stages: int) -> Dict[str, Any]:
    """What :func:`~...slimmable.verify_slicing` tries, beside its defaults.

    Neighbouring stages have other widths, and each is wide once.
    """
    if stages == 1:
        return {}
    narrow, wide = 0.3, 0.7
    pair = [narrow if i % 2 else wide for i in range(stages)]
    mixed = stage_widths(pair), stage_widths(pair[::-1])
    return dict(fractions=(narrow, wide, *mixed))
