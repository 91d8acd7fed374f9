# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Multiply-accumulates of a training step (Eq. 2, Eq. 9, Table 3)."""

from functools import lru_cache
from itertools import product
from statistics import fmean
from typing import Callable, Iterable, List, Sequence, Tuple

from torch.nn.modules.batchnorm import _BatchNorm

from ..models import MutualLearningMixin
from ..sampler import SubnetSampler
from ..slimmable import SlimLayer, active_channels
from ..subnet import Subnet
from .macs import count_macs

Pieces = Sequence[Tuple[float, float]]
"""Widths, and the share of the range that each stands for."""


def closed_form_ratio(sampler: SubnetSampler) -> float:
    """Expected cost of a step by Eq. 2, relative to the full network's.

    As if multiply-accumulates were proportional to the squares of width and
    resolution, and to the frames of video (Eq. 9).

    Args:
        sampler (SubnetSampler): Names the space and the draws of a step.

    Returns:
        float: 1 for the full network trained alone.
    """
    full, space = sampler.space.full, sampler.space

    def relative(subnet: Subnet) -> float:
        return (
            (subnet.width / full.width) ** 2
            * (subnet.resolution / full.resolution) ** 2
            * ((subnet.frames or 1) / (full.frames or 1))
        )

    a, b = space.min_width, space.max_width
    # Simpson's rule: exact for a square.
    simpson = [(a, 1 / 6), ((a + b) / 2, 4 / 6), (b, 1 / 6)]
    return _expectation(sampler, relative, simpson)


def expected_macs(
    model: MutualLearningMixin,
    track: Callable[[Pieces], Iterable[Tuple[float, float]]] = iter,
) -> float:
    """Expected multiply-accumulates of a step for one training image.

    Forward passes of all subnets of a step, counted from their rounded
    channels (:func:`~.macs.count_macs`). The expectation over the uniform
    width is exact: counts are constant between the widths at which some layer
    gets more channels.

    Args:
        model (MutualLearningMixin): As built from a config.
        track (Callable): Goes through what takes the time, to show progress.
            Defaults to showing none.
    """
    sampler = model.sampler
    draws = sampler.space.is_range and sampler.num_random
    return _expectation(
        sampler,
        lambda subnet: count_macs(model, subnet),
        track(width_pieces(model) if draws else []),
    )


def width_pieces(model: MutualLearningMixin) -> Pieces:
    """Cut the range of widths where a layer's rounded channels change.

    Returns:
        list[tuple[float]]: A width inside of each piece, and the share of
        the range that the piece takes. Shares add up to 1.
    """
    space, state = model.space, model.slim_state
    kinds = {
        (layer.weight.shape[0], layer.slim_rule)
        for layer in model.modules()
        if isinstance(layer, SlimLayer)
        # Batch norms and grouped convolutions follow their input.
        and not isinstance(layer, _BatchNorm)
        and getattr(layer, 'groups', 1) == 1
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
        # No layer narrows as the width grows: equal ends, nothing between.
        if channels(a) == channels(b):
            return []
        middle = (a + b) / 2
        if b - a < 1e-9:
            return [middle]
        return steps(a, middle) + steps(middle, b)

    low, high = space.min_width, space.max_width
    if low == high:
        return [(low, 1.0)]
    edges = [low, *steps(low, high), high]
    return [
        ((a + b) / 2, (b - a) / (high - low)) for a, b in zip(edges, edges[1:])
    ]


def _expectation(
    sampler: SubnetSampler,
    cost: Callable[[Subnet], float],
    pieces: Iterable[Tuple[float, float]],
) -> float:
    """Expected sum of ``cost`` over the subnets that ``sampler`` draws.

    ``pieces`` stand for the uniform draw of one random width.
    """
    space = sampler.space
    sizes = list(product(space.resolutions, space.frames or (None,)))

    def mean(width: float) -> float:
        return fmean(cost(Subnet(width, *size)) for size in sizes)

    total = mean(space.max_width) if sampler.shared else cost(space.full)
    if not space.is_range:
        return total + sum(mean(w) for w in sorted(set(space.widths))[:-1])
    if sampler.include_min:
        total += mean(space.min_width)
    if sampler.num_random:
        total += sampler.num_random * sum(
            share * mean(width) for width, share in pieces
        )
    return total
