# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Widths of subnets: one number, or one for each stage of the network."""

from statistics import fmean
from typing import Any, Sequence, Tuple


class StageWidths(float):
    """A width for each stage of a network, written ``0.25-0.5-0.75-1.0``.

    As a number it is their mean, by which subnets are ordered. Made by
    :func:`stage_widths`.

    Attributes:
        stages (tuple[float]): In the order of the pass.
    """

    stages: Tuple[float, ...]

    def __new__(cls, stages: Sequence[float]) -> 'StageWidths':
        """Make a float of the mean: those take their value here."""
        made = super().__new__(cls, fmean(stages))
        made.stages = tuple(map(float, stages))
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StageWidths) and self.stages == other.stages

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.stages)

    def __reduce__(self) -> Any:
        return StageWidths, (self.stages,)

    def __repr__(self) -> str:
        return '-'.join(map(repr, self.stages))

    def __format__(self, spec: str) -> str:
        return '-'.join(format(width, spec) for width in self.stages)


def stage_widths(stages: Sequence[float]) -> float:
    """One width for each stage; a plain number if all are equal."""
    equal = len(set(stages)) == 1
    return float(stages[0]) if equal else StageWidths(stages)


def each_width(width: float) -> Tuple[float, ...]:
    """The widths of all stages; of a plain number, that one."""
    return width.stages if isinstance(width, StageWidths) else (width,)
