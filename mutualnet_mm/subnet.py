# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Subnets as plain values: one, and the space of all."""

import math
import re
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Callable, List, Optional, Sequence, Tuple, Union

from .errors import ConfigError, is_count
from .widths import StageWidths, each_width, stage_widths

Size = Tuple[int, ...]
"""Height and width in pixels; before them the segments of a video, where a 2D
network takes it apart."""

COMMON_SHAPE: Size = (480, 640)
"""Of most images of COCO."""

_MAX_WIDTHS = 1000  # of a grid; each is tested
_WIDTH = r'\d+(?:\.\d+)?(?:e[+-]?\d+)?'
_PATTERN = re.compile(
    rf'(?P<width>{_WIDTH}(?:-{_WIDTH})*)x'
    r'-(?P<resolution>\d+)(?:-(?P<frames>\d+))?'
)


@dataclass(frozen=True)
class Subnet:
    """One configuration of the network, written ``0.7x-160``.

    Args:
        width (float): Fraction of the base network's channels; one for each
            stage as :func:`stage_widths` makes it.
        resolution (int): Spatial resolution in pixels. The input is what the
            full network sees, scaled by it over the full resolution: a side
            of the crops of a classifier or of clips, the short edge or a side
            of what a detector's test pipeline resizes images to.
        frames (int, optional): Frames of the clip, or segments of the video
            where the network is 2D; for video only. Defaults to None.
    """

    width: float
    resolution: int
    frames: Optional[int] = None

    def __post_init__(self) -> None:
        if (
            not all(map(_is_width, each_width(self.width)))
            or not is_count(self.resolution)
            or not (self.frames is None or is_count(self.frames))
        ):
            raise ConfigError(
                f'subnet width {self.width!r}, resolution '
                f'{self.resolution!r}, frames {self.frames!r}: all must be '
                'positive, resolution and frames whole numbers'
            )
        if not isinstance(self.width, StageWidths):
            object.__setattr__(self, 'width', float(self.width))

    @classmethod
    def parse(cls, text: Union[str, 'Subnet']) -> 'Subnet':
        """Read ``'0.7x-160'`` or, for video, ``'0.63x-142-3'``.

        With a width for each stage, ``'0.25-0.5-0.75-1.0x-224'``.

        ``Subnet.parse(str(subnet))`` is ``subnet``; a Subnet is returned as
        it is.

        Raises:
            ConfigError: If ``text`` has any other form.
        """
        if isinstance(text, Subnet):
            return text
        match = _PATTERN.fullmatch(str(text).strip())
        if match is None:
            raise ConfigError(
                f'subnet {text!r} is not understood: write WIDTHx-RESOLUTION '
                "or, for video, WIDTHx-RESOLUTION-FRAMES, as in '0.7x-160'"
            )
        frames = match['frames']
        return cls(
            stage_widths([*map(float, re.findall(_WIDTH, match['width']))]),
            int(match['resolution']),
            None if frames is None else int(frames),
        )

    def __str__(self) -> str:
        frames = '' if self.frames is None else f'-{self.frames}'
        return f'{self.width!r}x-{self.resolution}{frames}'


class SubnetSpace:
    """All subnets that one network is trained for.

    Args:
        width_range (Sequence[float], optional): Least and largest width,
            ``(0.25, 1.0)``, between which any is trained. Defaults to None.
        widths (Sequence[float], optional): In place of a range, the fixed
            list of trained widths (S-Net). Defaults to ``(1.0,)``.
        resolution (Sequence[int]): The trained resolutions. The first is the
            full one and the largest.
        frames (Sequence[int], optional): The trained numbers of frames, the
            first is the full one and the largest. Defaults to None.
        norm (str): Whether batch norms have one weight and bias for all
            resolutions, ``'shared'``, or one for each, ``'per-resolution'``.
            Defaults to ``'shared'``.
        stages (int): Stages of the backbone whose random widths differ.
            Defaults to 1: all have the same width.

    Raises:
        ConfigError: If a value is out of place or listed twice, or if both a
            range and a list of widths are given.
    """

    def __init__(
        self,
        width_range: Optional[Sequence[float]] = None,
        resolution: Sequence[int] = (224,),
        frames: Optional[Sequence[int]] = None,
        widths: Optional[Sequence[float]] = None,
        norm: str = 'shared',
        stages: int = 1,
    ) -> None:
        if norm not in ('shared', 'per-resolution'):
            raise ConfigError(
                f"mutual.norm={norm!r}: use 'shared' or 'per-resolution'"
            )
        self.norm = norm
        if width_range is not None and widths is not None:
            raise ConfigError(
                f'mutual.width_range={width_range!r} and mutual.widths='
                f'{widths!r}: give one of them; width_range=None (or '
                'widths=None) takes back an inherited one'
            )
        self.is_range = width_range is not None
        if not is_count(stages) or (stages > 1 and not self.is_range):
            raise ConfigError(
                f'mutual.stages={stages!r}: use a whole number from 1; above '
                '1 widths are drawn, which takes a width_range'
            )
        self.stages = stages
        if width_range is not None:
            self.widths = _numbers('width_range', width_range, _is_width)
            if len(self.widths) != 2 or not self.widths[0] < self.widths[1]:
                raise ConfigError(
                    f'mutual.width_range={width_range!r}: give the least and '
                    'the largest width, as in (0.25, 1.0); a fixed list is '
                    'mutual.widths'
                )
        else:
            self.widths = _numbers(
                'widths', (1.0,) if widths is None else widths, _is_width
            )
            _refuse_doubles('widths', self.widths)
        self.min_width = min(self.widths)
        self.max_width = max(self.widths)
        self.resolutions = _counts('resolution', resolution)
        self.frames = None if frames is None else _counts('frames', frames)

    @property
    def full(self) -> Subnet:
        """Subnet: Widest, at the first resolution (and frames)."""
        frames = None if self.frames is None else self.frames[0]
        return Subnet(self.max_width, self.resolutions[0], frames)

    @property
    def smallest(self) -> Subnet:
        """Subnet: Narrowest, at the lowest resolution (and frames)."""
        frames = None if self.frames is None else min(self.frames)
        return Subnet(self.min_width, min(self.resolutions), frames)

    def check(self, subnet: Union[str, Subnet]) -> Subnet:
        """Return ``subnet`` (parsed), refusing one that cannot be run well.

        Widths outside of the trained range and inputs larger than the full
        one are refused. Resolutions *between* the trained ones pass (US-Net+
        of the paper is evaluated there), unless batch norms have parameters
        for each of these alone.

        Raises:
            ConfigError: Names the subnet and the range.
        """
        subnet = Subnet.parse(subnet)
        widths = each_width(subnet.width)
        if len(widths) not in (1, self.stages):
            raise ConfigError(
                f'subnet {subnet} has widths of {len(widths)} stages, and '
                f'those of {self.stages} are trained: set mutual.stages, or '
                'name one width'
            )
        if not self.min_width <= min(widths) <= max(widths) <= self.max_width:
            raise ConfigError(
                f'subnet {subnet}: width {subnet.width} is outside of the '
                f'trained [{self.min_width}, {self.max_width}]'
            )
        if subnet.resolution > self.full.resolution:
            raise ConfigError(
                f'subnet {subnet}: resolution {subnet.resolution} is above '
                f'the full {self.full.resolution}'
            )
        if (
            self.norm == 'per-resolution'
            and subnet.resolution not in self.resolutions
        ):
            raise ConfigError(
                f'subnet {subnet}: batch norms have a weight and a bias for '
                'each trained resolution, '
                f'{", ".join(map(str, self.resolutions))}, and for no other'
            )
        if (subnet.frames is None) != (self.frames is None):
            raise ConfigError(
                f'subnet {subnet}: '
                f'{"name" if self.frames else "leave out"} its frames, as in '
                f'{self.full}'
            )
        if subnet.frames and subnet.frames > max(self.frames or ()):
            raise ConfigError(
                f'subnet {subnet}: {subnet.frames} frames are '
                f'more than the full {self.full.frames}'
            )
        return subnet

    def relative_cost(self, subnet: Subnet) -> float:
        """Cost over the full network's by the paper's Eq. 2 (video: Eq. 9).

        It takes multiply-accumulates as proportional to the squares of width
        and resolution, and to the frames.
        """
        full = self.full
        return (
            fmean((w / full.width) ** 2 for w in each_width(subnet.width))
            * (subnet.resolution / full.resolution) ** 2
            * ((subnet.frames or 1) / (full.frames or 1))
        )

    def is_below(self, subnet: Subnet) -> bool:
        """Whether a subnet's size is smaller than any that is trained."""
        least = self.smallest
        return subnet.resolution < least.resolution or (
            subnet.frames is not None and subnet.frames < (least.frames or 0)
        )

    def choose(
        self,
        subnets: Union[str, Subnet, Sequence[Union[str, Subnet]], None] = None,
    ) -> List[Subnet]:
        """Check a list of subnets and leave out what comes twice.

        Args:
            subnets (Sequence or one, optional): Defaults to the full and the
                smallest one.

        Raises:
            ConfigError: As :meth:`check`.
        """
        if isinstance(subnets, (str, Subnet)):
            subnets = [subnets]
        chosen = subnets or (self.full, self.smallest)
        return list(dict.fromkeys(map(self.check, chosen)))

    def grid(self, step: float = 0.05) -> List[Subnet]:
        """Every width in steps of ``step`` x resolution (x frames).

        Widths are rounded to six digits and always hold both ends of the
        range; a list of widths is taken as it is. Widest and largest first.
        """
        if not step > 0:
            raise ConfigError(f'step={step!r}: use a positive step of widths')
        widths = list(self.widths)
        if self.is_range:
            count = int((self.max_width - self.min_width) / step + 1e-6)
            if count > _MAX_WIDTHS:
                raise ConfigError(
                    f'step={step!r} gives {count + 1} widths: use a larger '
                    'step'
                )
            steps = (
                round(self.max_width - i * step, 6) for i in range(count + 1)
            )
            # Not beyond the ends by rounding, nor beside them.
            low, high = self.min_width + 1e-6, self.max_width - 1e-6
            widths += [width for width in steps if low < width < high]
        return [
            Subnet(*point)
            for point in product(
                sorted(set(widths), reverse=True),
                self.resolutions,
                self.frames or (None,),
            )
        ]

    def __repr__(self) -> str:
        name = 'width_range' if self.is_range else 'widths'
        return (
            f'SubnetSpace({name}={self.widths}, '
            f'resolution={self.resolutions}, frames={self.frames})'
        )


def _is_width(value: object) -> bool:
    return is_count(value) or (
        isinstance(value, float) and math.isfinite(value) and value > 0
    )


def _numbers(
    name: str, values: Sequence, accept: Callable[[object], bool]
) -> tuple:
    if (
        not isinstance(values, (list, tuple))
        or len(values) == 0
        or not all(map(accept, values))
    ):
        kind = 'whole ' if accept is is_count else ''
        raise ConfigError(
            f'mutual.{name}={values!r}: give a list of at least one '
            f'positive {kind}number'
        )
    return tuple(values)


def _counts(name: str, values: Sequence) -> Tuple[int, ...]:
    values = _numbers(name, values, is_count)
    _refuse_doubles(name, values)
    if max(values) != values[0]:
        raise ConfigError(
            f'mutual.{name}={values!r}: name the full (largest) one first'
        )
    return values


def _refuse_doubles(name: str, values: Sequence[float]) -> None:
    """It would be trained twice in a step, or drawn twice as often."""
    doubles = sorted({v for v in values if values.count(v) > 1}, reverse=True)
    if doubles:
        raise ConfigError(
            f'mutual.{name}={values!r}: {doubles[0]} is listed more than '
            'once; list each once'
        )


def names_subnet(metric: str) -> bool:
    """Whether a metric is that of a subnet, as ``0.5x-160/accuracy/top1``.

    Only subnets are prefixed, by what reads as one.
    """
    name = metric.partition('/')[0]
    return 'x-' in name and name[0].isdigit()


def split_metric(metric: str) -> Tuple[Optional[str], str]:
    """Tell the subnet of a metric, and its stock name.

    Args:
        metric (str): Such as ``'0.5x-160/accuracy/top1'``.

    Returns:
        tuple: ``'0.5x-160'`` and ``'accuracy/top1'``; None for the full
        network, whose metrics have their stock names.
    """
    if not names_subnet(metric):
        return None, metric
    subnet, _, name = metric.partition('/')
    return subnet, name
