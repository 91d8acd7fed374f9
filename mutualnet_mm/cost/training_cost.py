# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Multiply-accumulates of a training step (Eq. 2, Eq. 9, Tables 3 and 4)."""

from functools import lru_cache
from itertools import product
from statistics import fmean
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from ..errors import ConfigError
from ..models import MutualLearningMixin
from ..models.trained_teacher import TrainedTeacher
from ..sampler import SubnetSampler
from ..slimmable import SlimLayer, active_channels
from ..slimmable.macs import count_on_meta
from ..slimmable.meta import meta_copy
from ..subnet import Size, Subnet
from .macs import count_macs
from .macs_by_width import MacsByWidth

Pieces = Sequence[Tuple[float, float]]
"""Widths, and the share of the range that each stands for."""


def ways_of_sampling(sampler: SubnetSampler) -> Dict[str, SubnetSampler]:
    """Name a way of sampling, and the others that it is compared with.

    Args:
        sampler (SubnetSampler): Sampler of a config.

    Returns:
        dict: ``sampler`` first. For video, the three of the paper's Table 4
        follow. Beside the full width, they have two random ones, the smallest
        and a random one, and a random one.
    """
    ways = {_name(sampler): sampler}
    space = sampler.space
    if (
        space.frames is not None
        and space.is_range
        and not sampler.single_subnet
    ):
        for num_random, include_min in ((2, False), (1, True), (1, False)):
            other = SubnetSampler(
                space, num_random, include_min, start=sampler.start
            )
            ways.setdefault(_name(other), other)
    return ways


def _name(sampler: SubnetSampler) -> str:
    if sampler.single_subnet:
        return f'{sampler.single_subnet} alone'
    tags = list(sampler.sample(0))
    parts = ['full', *['smallest' for tag in tags if tag == 'min']]
    for kind, tag in (('random', 'rand'), ('fixed', 'fixed')):
        number = sum(r.startswith(tag) for r in tags)
        parts += [f'{number} {kind}'] * (number > 0)
    name = ' + '.join(parts) + ' of one size' * sampler.shared
    if sampler.start:
        name += f', from {sampler.start:g} of the training on'
    return name


def teacher_macs(
    model: MutualLearningMixin,
    image_shape: Optional[Size] = None,
    full: Optional[Subnet] = None,
) -> float:
    """Cost of a step's teacher that is none of its networks.

    A third of the multiply-accumulates of its forward pass: the backward pass,
    which takes about twice as many, is left out, and all costs here are those
    of forward passes with a backward.

    Args:
        model (MutualLearningMixin): As built from a config.
        image_shape (tuple[int], optional): As for :func:`~.macs.count_macs`.
            Defaults to None.
        full (Subnet, optional): The full network at its size of the step,
            which an average of its weights runs at, too. Defaults to the full
            size.

    Returns:
        float: 0 without such a teacher.

    Raises:
        UsageError: If a trained teacher cannot be built.
    """
    teacher = model.learning.make_teacher()
    if teacher is None:
        return 0.0
    if not isinstance(teacher, TrainedTeacher):
        return count_macs(model, full or model.space.full, image_shape) / 3
    macs = count_on_meta(
        meta_copy(teacher.network()),
        model.task.meta_input(model, model.space.full, image_shape),
        forward=model.task.forward_cost,
    )
    return macs / 3


def closed_form_ratio(
    sampler: SubnetSampler, teacher: Callable[[Subnet], float] = lambda full: 0
) -> float:
    """Expected cost of a step by Eq. 2, relative to the full network's.

    The mean over a whole training: in its first part, ``start``, steps are of
    the full network alone.

    It takes multiply-accumulates as proportional to the squares of width and
    resolution, and to the frames of video (Eq. 9).

    Args:
        sampler (SubnetSampler): Has the space and the draws of a step.
        teacher (Callable): Gives the relative cost of a teacher, see
            :func:`teacher_macs`, of the full network at its size of the step.
            Defaults to that of none.

    Returns:
        float: 1 for the full network trained alone.
    """
    space = sampler.space
    a, b = space.min_width, space.max_width
    # Simpson's rule: exact for a square.
    simpson = [(a, 1 / 6), ((a + b) / 2, 4 / 6), (b, 1 / 6)]
    costs = _expectations([sampler], space.relative_cost, simpson, teacher)
    return costs[0]


def expected_macs(
    model: MutualLearningMixin,
    samplers: Sequence[SubnetSampler],
    image_shape: Optional[Size] = None,
    track: Callable[[Pieces], Iterable[Tuple[float, float]]] = iter,
    count: Optional[MacsByWidth] = None,
) -> List[float]:
    """Expected multiply-accumulates of a step for one training image.

    Forward passes of all subnets of a step, counted from their rounded
    channels (:class:`~.macs_by_width.MacsByWidth`). The expectation over the
    uniform width is exact: counts are constant between the widths at which
    some layer gets more channels. The mean over a whole training: in its
    first part, ``start``, steps are of the full network alone. A teacher of
    its own counts as :func:`teacher_macs` says.

    Args:
        model (MutualLearningMixin): As built from a config.
        samplers (Sequence[SubnetSampler]): Ways to sample ``model.space``;
            they share the part that takes the time.
        image_shape (tuple[int], optional): As for :func:`~.macs.count_macs`.
            Defaults to None.
        track (Callable): Wraps the iteration that takes the time, to show
            progress. Defaults to showing none.
        count (MacsByWidth, optional): One of the same model and size, which
            has counted before. Defaults to a new one.

    Returns:
        list[float]: One for each of ``samplers``.
    """
    draws = model.space.is_range and any(
        s.num_random and not s.single_subnet for s in samplers
    )
    pieces = width_pieces(model) if draws else []
    return _expectations(
        samplers,
        count or MacsByWidth(model, image_shape),
        track(pieces),
        lru_cache(maxsize=None)(
            lambda full: teacher_macs(model, image_shape, full)
        ),
    )


def width_pieces(model: MutualLearningMixin) -> Pieces:
    """Cut the range of widths where a layer's rounded channels change.

    Returns:
        list[tuple[float]]: A width inside each piece, and the share of the
        range that the piece takes. Shares add up to 1.
    """
    space, state = model.space, model.slim_state
    kinds = {
        (layer.built, layer.slim_rule)
        for layer in model.modules()
        if isinstance(layer, SlimLayer)
        # Norms and convolutions that drop groups follow their input.
        and not layer.follows
    }

    @lru_cache(maxsize=None)
    def channels(width: float) -> Tuple[int, ...]:
        return tuple(
            active_channels(
                number, width, state.max_width, rule, state.rounding
            )
            for number, rule in kinds
        )

    def steps(a: float, b: float) -> List[float]:
        # No layer narrows as the width grows: if both ends are equal, nothing
        # changes between them.
        if channels(a) == channels(b):
            return []
        middle = (a + b) / 2
        if b - a < 1e-9:
            return [middle]
        return steps(a, middle) + steps(middle, b)

    low, high = space.min_width, space.max_width
    edges = [low, *steps(low, high), high]
    return [
        ((a + b) / 2, (b - a) / (high - low)) for a, b in zip(edges, edges[1:])
    ]


def _expectations(
    samplers: Sequence[SubnetSampler],
    cost: Callable[[Subnet], float],
    pieces: Iterable[Tuple[float, float]],
    teacher: Callable[[Subnet], float],
) -> List[float]:
    """Expected sums of ``cost`` over the subnets that ``samplers`` draw.

    All draw from one space. ``pieces`` stand for the uniform draw of one
    random width. ``teacher`` is the cost of what predicts beside them, where
    the full network has a size.
    """
    space = samplers[0].space
    if space.stages > 1:
        raise ConfigError(
            f'mutual.stages={space.stages}: the mean cost of a step is known '
            'for one random width of all stages alone; leave stages out for '
            'an estimate'
        )
    sizes = list(product(space.resolutions, space.frames or (None,)))

    def mean(width: float) -> float:
        return fmean(cost(Subnet(width, *size)) for size in sizes)

    random = sum(share * mean(width) for width, share in pieces)

    def expectation(sampler: SubnetSampler) -> float:
        if sampler.single_subnet:
            return cost(sampler.single_subnet)
        fulls = [space.full]
        if sampler.shared:
            fulls = [Subnet(space.max_width, *size) for size in sizes]
        full, own = (fmean(map(count, fulls)) for count in (cost, teacher))
        if not space.is_range:
            rest = sum(map(mean, sorted(set(space.widths))[:-1]))
        else:
            # Stratified or not, they are uniform together.
            rest = sampler.num_random * random
            if sampler.include_min:
                rest += mean(space.min_width)
        return full + (1 - sampler.start) * (rest + own)

    return [expectation(sampler) for sampler in samplers]
