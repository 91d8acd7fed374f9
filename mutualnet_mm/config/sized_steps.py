# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The steps of stock pipelines that set a size, all read by these rules."""

import math
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..subnet import Size
from .pipelines import Step, both_sides

# In the names of the steps that set a size, ours and stock.
_KINDS = ('Resize', 'Rescale', 'Crop', 'MultiResolution')
# What they call it. Some call a range of factors scale, beside a size.
_SIZES = ('crop_size', 'size', 'scale', 'scales')
# A side that follows from the other one.
_OPEN = (-1, math.inf)
_RANDOM = ('RandomResize', 'RandomChoice', 'RandomRescale')


class Sizing(NamedTuple):
    """A step that sets the size of an image, and what it says of it.

    Args:
        step (Step): As the config writes it.
        written: The size as the config writes it; None without one.
        sides (tuple[int]): Two sides in pixels in the order written, mostly
            the width first; of several sizes those of the largest. Empty
            where they depend on the image.
        keeps_ratio (bool): Whether they are limits, of which the image
            reaches one.
        certain (bool): Whether every image gets them.
        longest (float): What the long edge has at most where the ratio is
            kept: infinite where the short one has its side however long the
            image, as with a side of -1.
    """

    step: Step
    written: Any
    sides: Size
    keeps_ratio: bool
    certain: bool
    longest: float

    @property
    def is_crop(self) -> bool:
        """Whether the step cuts the size out of an image."""
        return 'Crop' in self.step.kind

    @property
    def is_exact(self) -> bool:
        """Whether every image has both sides."""
        return self.certain and not self.keeps_ratio

    def applied(self, shape: Size) -> Size:
        """Height and width of an image behind the step.

        Args:
            shape (tuple[int]): Height and width before it.
        """
        if not self.keeps_ratio:
            return self.sides[::-1]  # written width first
        factor = min(min(self.sides) / min(shape), self.longest / max(shape))
        height, width = (int(side * factor + 0.5) for side in shape)
        return height, width

    def is_full(self, full: int) -> bool:
        """Whether an image has the full resolution.

        Its short edge counts, of one that does not keep its ratio any side.

        Args:
            full (int): The full resolution.
        """
        if self.keeps_ratio:
            return full == min(self.sides, default=None)
        return full in self.sides


def sizings(steps: Sequence[Step], of_clips: bool) -> List[Sizing]:
    """Read the steps of a pipeline that set a size, in their order.

    Args:
        steps (Sequence[Step]): In the order that they run.
        of_clips (bool): Whether they are mmaction2's, whose ``Resize`` keeps
            the ratio unless told otherwise.
    """
    found: List[Sizing] = []
    for step in steps:
        if any(kind in step.kind for kind in _KINDS):
            found.append(_sizing(step, of_clips))
        elif step.kind == 'GeneratePoseTarget' and found:
            factor = step.settings.get('scaling', 1)
            if factor != 1:
                found.append(_scaled(found[-1], step, factor))
    return found


def _scaled(before: Sizing, step: Step, factor: float) -> Sizing:
    """The size of the maps that poses within an image are drawn on."""
    return before._replace(
        step=step,
        written=f'scaling={factor} behind {before.written}',
        # Rounded as the step does.
        sides=tuple(int(side * factor + 0.5) for side in before.sides),
        longest=before.longest * factor,
    )


def _sizing(step: Step, of_clips: bool) -> Sizing:
    inner = step
    if step.kind == 'MultiResolution':
        inner = Step(step.place, step.settings.get('resize') or {})
    written: Any = None
    pairs: List[Size] = []
    for name, value in _written(inner):
        pairs = list(_pairs(value, are_several=name == 'scales'))
        if pairs:
            written = value
            break
    keeps_ratio = _keeps_ratio(inner, of_clips)
    is_random = inner.kind.startswith(_RANDOM) and 'Crop' not in inner.kind
    sides: Size = max(pairs, key=min, default=())
    return Sizing(
        step=step,
        written=written,
        sides=sides,
        keeps_ratio=keeps_ratio,
        certain=bool(pairs) and not is_random,
        longest=_longest(inner, written, sides),
    )


def _written(step: Step) -> Iterator[Tuple[str, Any]]:
    """Yield the settings of a step that may name its size."""
    settings = step.settings
    if settings.get('crop_type', 'absolute') != 'absolute':
        return  # drawn anew for each image
    if settings.get('edge', 'short') not in ('short', 'long'):
        return  # follows from the image
    if step.kind == 'FixShapeResize':
        yield 'size', (settings.get('width'), settings.get('height'))
    for name in _SIZES:
        yield name, settings.get(name)


def _keeps_ratio(step: Step, of_clips: bool) -> bool:
    if 'Crop' in step.kind:
        return False
    if step.kind == 'torchvision/Resize':  # of one number: the short edge
        return isinstance(step.settings.get('size'), int)
    if step.kind in ('ResizeEdge', 'ResizeShortestEdge'):
        return True
    by_itself = of_clips and step.kind == 'Resize'
    return bool(step.settings.get('keep_ratio', by_itself))


def _longest(step: Step, written: Any, sides: Size) -> float:
    settings = step.settings
    if step.kind in ('ResizeShortestEdge', 'torchvision/Resize'):
        return settings.get('max_size') or math.inf
    is_short_edge = settings.get('edge', 'short') == 'short'
    if step.kind == 'ResizeEdge' and is_short_edge:
        return math.inf
    if any(side in _OPEN for side in both_sides(written) or ()):
        return math.inf
    return max(sides, default=math.inf)


def _pairs(written: Any, are_several: bool) -> Iterator[Size]:
    """Yield the sizes that a setting names, as pairs of pixels."""
    sides = None if are_several else _sides(both_sides(written))
    if sides is not None:
        yield sides
    elif isinstance(written, (list, tuple)):
        for item in written:
            if are_several or isinstance(item, (list, tuple)):
                yield from _pairs(item, are_several=False)


def _sides(pair: Optional[Tuple[Any, Any]]) -> Optional[Size]:
    """Two numbers of pixels; mmaction2 leaves one to the other with -1."""
    if pair is None:
        return None
    first, second = pair
    sides = (
        second if first in _OPEN else first,
        first if second in _OPEN else second,
    )
    is_size = all(isinstance(side, int) and side > 0 for side in sides)
    return sides if is_size else None
