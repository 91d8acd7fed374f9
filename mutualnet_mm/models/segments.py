# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Modules of 2D video networks that count the segments of a video."""

from typing import Dict, Sequence

from mmaction import models
from mmaction.models.backbones.resnet_tsm import TemporalShift
from torch import nn

from ..errors import ConfigError
from ..slimmable import SlimState
from ..slimmable.convert import stock_name
from .wraps import Stock, swap

# Their weights are the same for any number of segments. MobileOneTSM is there
# beside mmpretrain alone.
_TSM = ('TSMHead', 'ResNetTSM', 'MobileNetV2TSM', 'MobileOneTSM')
_ANY_NUMBER = {TemporalShift.forward} | {
    getattr(models, name).forward for name in _TSM if hasattr(models, name)
}


class ElasticMixin(Stock):
    """Counts the active subnet's segments in place of those built for."""

    prefix = 'Elastic'

    slim_state: SlimState

    @property
    def num_segments(self) -> int:
        """int: Of the active subnet; as built where none says."""
        return self.slim_state.frames or vars(self)['num_segments']


def takes_one_number(model: nn.Module) -> bool:
    """Whether a recognizer has weights for a single number of segments."""
    return any(
        type(module).forward not in _ANY_NUMBER
        for module in _counting(model).values()
    )


def follow_segments(
    model: nn.Module, frames: Sequence[int], state: SlimState
) -> bool:
    """Let what counts segments follow the active subnet.

    Instances become ones of a made subclass: the shifts of TSM, and TSM's
    head. Others keep what they were built for.

    Args:
        model (nn.Module): Recognizer, changed in place.
        frames (Sequence[int]): Segments of the subnets, the full number first.
        state (SlimState): The active subnet.

    Returns:
        bool: Whether there are such modules: then segments come in fixed
        numbers, which a network without them does not mind.

    Raises:
        ConfigError: If a module was built for another number than the full
            one, or if one needs a single number and there are several.
    """
    counting = _counting(model)
    for name, module in counting.items():
        place, built = f'model.{name}', module.num_segments
        if built != frames[0]:
            raise ConfigError(
                f'{place} ({stock_name(module)}) is built for {built} '
                f'segments, but mutual.frames[0] is {frames[0]}: set '
                f'num_segments={frames[0]} in model.backbone and '
                f'model.cls_head, or frames={built} and less'
            )
        if type(module).forward not in _ANY_NUMBER and len(frames) > 1:
            raise ConfigError(
                f'{place} ({stock_name(module)}) works for {built} segments '
                f'alone: set mutual.frames=({built},), so that subnets differ '
                'in width and resolution'
            )
    for name, module in counting.items():
        # A backbone only hands the number on to its parts.
        if name != 'backbone' and type(module).forward in _ANY_NUMBER:
            swap(module, ElasticMixin)
            module.slim_state = state
    return bool(counting)


def _counting(model: nn.Module) -> Dict[str, nn.Module]:
    """The modules that say a number of segments, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, 'num_segments', None), int)
    }
