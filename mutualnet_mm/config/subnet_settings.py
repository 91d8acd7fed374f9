# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Which subnets a stock config should train: the settings of ``mutual``."""

from typing import Any, Callable, List, Optional, Sequence, Tuple

from mmengine.config import Config

from ..errors import ConfigError
from .changes import Change
from .full_size import clip_length, full_resolution
from .stock_traits import StockTraits
from .views import frame_stride

# The least width by the task's first word, and whose it is in the paper.
_LEAST_WIDTHS = dict(
    classification=(0.7, "as the paper's ResNet-50"),
    action=(0.63, "as the paper's video networks"),
)
_LEAST_WIDTH = (0.25, "as the paper's detectors")


def subnet_settings(
    cfg: Config,
    traits: StockTraits,
    width: Optional[Sequence[float]],
    resolution: Optional[Sequence[int]],
    frames: Optional[Sequence[int]],
) -> List[Change]:
    """List the settings of ``mutual``; see :func:`~.adaptive.derive`."""
    found = [
        ('width_range', *_width(traits, width)),
        ('resolution', *_resolution(cfg, traits, resolution)),
    ]
    if traits.of_clips:
        found.append(('frames', *_frames(cfg, traits, frames)))
    elif frames is not None:
        raise ConfigError(
            f'frames={_listed(frames)} are for videos, but this is a '
            f'model of {traits.task}: leave them out'
        )
    at = f'{traits.place}.mutual'
    return [
        Change(f'{at}.{name}', _listed(value), why)
        for name, value, why in found
    ]


def _listed(given: Any) -> Any:
    """A tuple; what is no list stays as it is, for SubnetSpace to refuse."""
    is_list = isinstance(given, Sequence) and not isinstance(given, str)
    return tuple(given) if is_list else given


_Setting = Tuple[Any, str]
"""A value, and why."""


def _width(traits: StockTraits, given: Optional[Sequence[float]]) -> _Setting:
    why = 'least and largest'
    if given is not None:
        return given, why
    task = traits.task.split('_')[0]
    least, whose = _LEAST_WIDTHS.get(task, _LEAST_WIDTH)
    return (least, 1.0), f'{why}, {whose}'


def _resolution(
    cfg: Config, traits: StockTraits, given: Optional[Sequence[int]]
) -> _Setting:
    if given is not None:
        return given, 'the full one first'
    full = full_resolution(cfg, traits.of_clips)
    if full is None:
        raise ConfigError(
            'no step of the pipelines says a size, so the full resolution '
            'is not known: name the resolutions, the full one first, as '
            'in --resolution 640,512,384'
        )
    sides = default_resolutions(full.value, traits.task, traits.divisor)
    return _taken(sides, traits.takes, f'full ({full}) and parts')


def _frames(
    cfg: Config, traits: StockTraits, given: Optional[Sequence[int]]
) -> _Setting:
    if given is not None:
        return given, 'of a clip'
    length = clip_length(cfg, traits.of_segments)
    if length is None:
        raise ConfigError(
            'no step of the pipelines says how long clips are: name the '
            'frames, the full number first, as in --frames 8,5,3'
        )
    stride = 1 if traits.of_segments else frame_stride(cfg)
    numbers = default_frames(length.value // stride)
    if traits.of_one_length:
        return numbers[:1], f'{length}, which its weights are for'
    why = f'full ({length}) and parts'
    full = full_resolution(cfg, True)
    if traits.of_segments or full is None:
        return numbers, why
    side = full.value
    return _taken(numbers, lambda n: traits.takes(side, n * stride), why)


def _taken(
    values: Sequence[int], takes: Callable[[int], bool], why: str
) -> _Setting:
    """Leave out what a backbone does not run at.

    All stay if that seems to be so of the full one, too: then its inputs are
    other ones than those that were tried.
    """
    if not takes(values[0]):
        return values, why
    taken = [value for value in values if takes(value)]
    others = [str(value) for value in values if value not in taken]
    if others:
        why += f'; the backbone does not run at {", ".join(others)}'
    return taken, why


def default_resolutions(
    full: int, task: str, divisor: int = 1
) -> Tuple[int, ...]:
    """Resolutions to train, in the paper's proportions.

    Args:
        full (int): The full one.
        task (str): Classifiers get 224, 192, 160 and 128 of 224; clips 224,
            178 and 142; all others the full one and 0.8, 0.6 and 0.4 of it.
        divisor (int): To a multiple of which images are padded: resolutions
            in between would cost the same. 32 where it is 1, which is the
            stride of most networks; for small images an eighth of them.
            Defaults to 1.

    Example:
        >>> default_resolutions(800, 'detection', 32)
        (800, 640, 480, 320)
    """
    parts: Sequence[float] = (0.8, 0.6, 0.4)
    if task.startswith('action'):
        parts, divisor = (178 / 224, 142 / 224), 1
    else:
        if task == 'classification':
            parts = (6 / 7, 5 / 7, 4 / 7)
        if divisor == 1:
            divisor = 32 if full >= 128 else max(1, full // 8)
    smaller = (
        max(1, int(part * full / divisor + 0.5)) * divisor for part in parts
    )
    chosen = dict.fromkeys((full, *(side for side in smaller if side < full)))
    return tuple(chosen)


def default_frames(full: int) -> Tuple[int, ...]:
    """Numbers of frames to train: the paper's 8, 5 and 3 in proportion."""
    parts = (1.0, 5 / 8, 3 / 8)
    return tuple(
        dict.fromkeys(max(1, int(full * part + 0.5)) for part in parts)
    )
