# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""How many channels a width keeps, and which."""

from dataclasses import dataclass
from typing import Callable, Dict

from torch import Tensor, cat

from ..errors import ConfigError


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of ``divisor``, never below 90 %.

    The MobileNet rule, as in the published code: half is rounded up, the
    least is ``divisor``, and a result below ``0.9 * value`` is raised by one
    step.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True)
class LayerRule:
    """How one layer follows the width.

    Args:
        fixed (bool): The output keeps all channels at every width; the layer
            only adapts to its input. Defaults to False.
        ratio (float): Channels are rounded as ``ratio`` times a rounded
            number: 6 for MobileNetV2's hidden layers, 1/4 for bottlenecks.
            Defaults to 1.
        divisor (int): Channels, or that rounded number, are a multiple of
            it: a grouped convolution's group width. Defaults to 8.
        input_tail (int): The input's last ``input_tail`` channels come from
            a branch that never narrows: they always meet the weight's last
            ``input_tail`` columns. Defaults to 0.
    """

    fixed: bool = False
    ratio: float = 1.0
    divisor: int = 8
    input_tail: int = 0


PLAIN = LayerRule()
"""The rule of a layer with nothing special."""


def _paper(channels: float, rule: LayerRule) -> int:
    return int(
        rule.ratio * make_divisible(channels / rule.ratio, rule.divisor)
    )


def _hardware(channels: float, rule: LayerRule) -> int:
    # Every tensor is a multiple of 8, whatever its ratio to another.
    return make_divisible(channels, rule.divisor)


ROUNDING: Dict[str, Callable[[float, LayerRule], int]] = dict(
    paper=_paper, hardware=_hardware
)
"""Rounding policies: ``(wanted channels, rule) -> channels``.

``paper`` gives the multiply-accumulates of the published code; ``hardware``
makes every tensor a multiple of 8 channels.
"""


def check_rounding(name: str) -> str:
    """Return ``name``, or raise ConfigError if no policy is called so."""
    if name not in ROUNDING:
        raise ConfigError(f'rounding={name!r}: use one of {sorted(ROUNDING)}')
    return name


def active_channels(
    channels: int,
    width: float,
    max_width: float = 1.0,
    rule: LayerRule = PLAIN,
    rounding: str = 'paper',
) -> int:
    """Number of leading channels that are active at ``width``.

    Args:
        channels (int): Channels of the layer as built, at ``max_width``.
        width (float): Active width, relative to the base network.
        max_width (float): Width that the layer was built at. Defaults to 1.
        rule (LayerRule): Defaults to a plain layer.
        rounding (str): A key of :data:`ROUNDING`. Defaults to ``'paper'``.
    """
    if rule.fixed or width >= max_width:
        return channels
    wanted = channels / max_width * width
    return min(channels, ROUNDING[rounding](wanted, rule))


def slice_inputs(weight: Tensor, inputs: int, tail: int = 0) -> Tensor:
    """Columns of ``weight`` (dim 1) that meet an input of ``inputs`` channels.

    The leading ones, or ``[0 : inputs - tail]`` and the last ``tail``.
    """
    if inputs == weight.shape[1]:
        return weight
    if tail == 0:
        return weight[:, :inputs]
    return cat([weight[:, : inputs - tail], weight[:, -tail:]], dim=1)
