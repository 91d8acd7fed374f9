# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""How many channels a width keeps, and which."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from ..errors import ConfigError
from ..widths import StageWidths


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
        parts (int): Channels are as many equal parts, each of which is
            rounded for itself. Defaults to 1.
        narrow_groups (bool): A grouped convolution keeps all of its groups
            and narrows each of them. Defaults to False: groups keep their
            width, and whole ones are dropped.
        heads (int): Channels, or each of the parts, are as many heads of
            attention, of which whole ones are kept, whatever their width.
            Defaults to 0: they are none.
        stage (int, optional): Which width counts where each stage has its
            own. Defaults to None: the layer is in no stage.

    Raises:
        ConfigError: If a number is out of its range.
    """

    fixed: bool = False
    ratio: float = 1.0
    divisor: int = 8
    parts: int = 1
    narrow_groups: bool = False
    heads: int = 0
    stage: Optional[int] = None

    def __post_init__(self) -> None:
        for name, least in (('divisor', 1), ('parts', 1), ('heads', 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f'{name}={getattr(self, name)!r} of a layer rule: use a '
                    f'whole number from {least}'
                )
        if not self.ratio > 0:
            raise ConfigError(
                f'ratio={self.ratio!r} of a layer rule is not positive'
            )

    def __deepcopy__(self, memo: dict) -> 'LayerRule':
        return self  # a value


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
    if rule.fixed:
        return channels
    if isinstance(width, StageWidths):
        if rule.stage is None:
            raise ConfigError(
                f'width {width}: a layer is in none of these stages, so name '
                'one width for all'
            )
        width = width.stages[rule.stage]
    if width >= max_width:
        return channels
    if rule.heads:
        kept = make_divisible(rule.heads * width / max_width, 1)
        return channels // rule.heads * min(rule.heads, kept)
    wanted = channels / max_width * width / rule.parts
    return min(channels, rule.parts * ROUNDING[rounding](wanted, rule))


Ranges = Tuple[Tuple[int, int], ...]
"""Channels ``start`` to ``stop`` (exclusive), in order."""


@dataclass(frozen=True)
class Piece:
    """Neighbouring channels that one layer made, leading ones first.

    A concatenation is a row of pieces: at a narrow width each keeps its own
    leading part.

    Args:
        size (int): Channels of the piece at the widest setting.
        made (int): Channels that the layer makes in all.
        rule (LayerRule): Of that layer.
        block (int): Channels of the part of the layer's output that the piece
            lies in. Each part keeps its share, so that the network can
            split the output where the parts meet.
        skip (int): Channels of the part before the first one of the piece.
            Defaults to 0.
        repeat (int): Neighbours that are of the same channel, as where a map
            was flattened. ``size`` counts each of them. Defaults to 1.
    """

    size: int
    made: int
    rule: LayerRule
    block: int
    skip: int = 0
    repeat: int = 1

    def active(self, width: float, max_width: float, rounding: str) -> int:
        """Number of leading channels that are active at ``width``."""
        made = active_channels(
            self.made, width, max_width, self.rule, rounding
        )
        kept = made * self.block // self.made - self.skip
        return min(self.size, max(0, kept) * self.repeat)

    def __deepcopy__(self, memo: dict) -> 'Piece':
        return self  # a value


Layout = Tuple[Piece, ...]
"""All channels of a tensor, in order."""


def active_ranges(
    layout: Layout, width: float, max_width: float, rounding: str
) -> Ranges:
    """Places of the active channels among all of them, at least one range."""
    ranges: List[Tuple[int, int]] = []
    start = 0
    for piece in layout:
        stop = start + piece.active(width, max_width, rounding)
        if ranges and ranges[-1][1] == start:
            ranges[-1] = ranges[-1][0], stop
        elif stop > start:
            ranges.append((start, stop))
        start += piece.size
    return tuple(ranges) or ((0, 0),)


def count(ranges: Ranges) -> int:
    """Number of channels in ``ranges``."""
    return sum(stop - start for start, stop in ranges)


def take(tensor: Tensor, ranges: Ranges, dim: int = 0) -> Tensor:
    """Channels ``ranges`` of a tensor: a view if they are neighbours."""
    if len(ranges) == 1:
        start, stop = ranges[0]
        return tensor.narrow(dim, start, stop - start)
    return tensor.index_select(dim, channel_index(ranges, tensor.device))


def channel_index(ranges: Ranges, device: torch.device) -> Tensor:
    """Number every channel of ``ranges``, as ``index_select`` takes them."""
    kept = _kept_index(ranges, device)
    if kept:
        return kept[0]
    with torch.inference_mode(False):  # else training could not use it
        numbers = [n for start, stop in ranges for n in range(start, stop)]
        index = torch.tensor(numbers, device=device)
    # While a network is exported, PyTorch makes fake tensors, which nothing
    # but that export could use.
    if type(index) is Tensor:
        kept.append(index)
    return index


@lru_cache(maxsize=4096)
def _kept_index(ranges: Ranges, device: torch.device) -> List[Tensor]:
    """Hold an index, once there is one."""
    del ranges, device
    return []
