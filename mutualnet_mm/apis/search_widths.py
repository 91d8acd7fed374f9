# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Which widths of stages are worth their cost: a search around a table."""

import random
from dataclasses import replace
from functools import lru_cache
from typing import Callable, List, Optional, Sequence, Tuple, Union

from mmengine.config import Config

from ..cost import count_macs, count_params
from ..errors import UsageError, check_count
from ..models.build import build_model
from ..query_table import QueryTable
from ..subnet import Subnet, SubnetSpace
from ..widths import StageWidths, each_width, stage_widths
from .build_table import build_table

# Cost, parameters and input: what makes subnets of other widths the same.
_Network = Tuple[int, int, int, Optional[int]]
_AT_ONCE = 8  # subnets that are tested before the next are drawn
_TRIES = 1000  # draws in a row that give nothing new: by then all are tested


def search_widths(
    cfg: Config,
    checkpoint: str,
    out: str,
    number: int,
    step: float = 0.05,
    subnets: Optional[Sequence[Union[str, Subnet]]] = None,
    num_images: Optional[int] = None,
    metric: Optional[str] = None,
    seed: int = 0,
) -> QueryTable:
    """Build a table, and add subnets that have a width for each stage.

    They are drawn around the best ones of the table: of one of these, one or
    two stages get a step wider or narrower, or it takes the next resolution
    (or number of frames). What rounds to the channels of a subnet that was
    drawn before is left out. Eight are calibrated and tested like all others,
    then the next are drawn around what is the best now. Interrupted, the same
    call goes on.

    The images of ``test_dataloader`` choose, so that the scores of those that
    were chosen are too good, the more of them are tried. Choose on images
    held back, and build the table of what was chosen on others.

    Args:
        cfg (Config): As for :func:`~.build_table.build_table`, of a model
            that was trained with ``mutual.stages`` above 1.
        checkpoint (str): File or address of the trained weights.
        out (str): Folder of the results.
        number (int): Of subnets with different widths that the table is to
            have; fewer, if there are no more.
        step (float): Of the widths, in the grid that comes first and from
            one drawn subnet to the next. Defaults to 0.05.
        subnets (Sequence, optional): Where the search starts, in place of the
            grid. Defaults to None.
        num_images (int, optional): As for a table. Defaults to all.
        metric (str, optional): What ranks the subnets, more being better.
            Defaults to the first one that the evaluator gives.
        seed (int): Of the draws. Defaults to 0.

    Returns:
        QueryTable: Of the grid and of what was drawn.

    Raises:
        UsageError: If the model has one width for all stages, or as for a
            table.
    """
    check_count(number, 'number')
    model = build_model(cfg)
    space = model.space
    if space.stages == 1:
        raise UsageError(
            'nothing to search: the model has one width for all stages; '
            'train it with model.mutual.stages set'
        )
    first = space.choose(subnets) if subnets else space.grid(step)

    def build(chosen: Sequence[Subnet]) -> QueryTable:
        table = build_table(
            cfg,
            checkpoint,
            out,
            step,
            chosen,
            num_images,
            metric,
            shard='1/1',
        )
        assert table is not None  # of one part
        return table

    @lru_cache(maxsize=None)
    def network(subnet: Subnet) -> _Network:
        costs = count_macs(model, subnet), count_params(model, subnet)
        return (*costs, subnet.resolution, subnet.frames)

    return _search(build, network, space, first, number, step, seed)


def _search(
    build: Callable[[Sequence[Subnet]], QueryTable],
    network: Callable[[Subnet], _Network],
    space: SubnetSpace,
    first: Sequence[Subnet],
    number: int,
    step: float,
    seed: int,
) -> QueryTable:
    table = build(first)
    while True:
        found = sum(
            isinstance(entry.subnet.width, StageWidths)
            for entry in table.entries
        )
        # What is drawn depends on the table alone: a search goes on alike.
        draw = random.Random(f'{seed} {len(table.entries)}')
        wanted = min(_AT_ONCE, number - found)
        new = _new_subnets(table, network, space, step, wanted, draw)
        if not new:
            return table
        table = build(new)


def _new_subnets(
    table: QueryTable,
    network: Callable[[Subnet], _Network],
    space: SubnetSpace,
    step: float,
    number: int,
    draw: random.Random,
) -> List[Subnet]:
    """Draw subnets with different widths that the table does not have."""
    parents = [entry.subnet for entry in table.pareto]
    known = {network(entry.subnet) for entry in table.entries}
    new: List[Subnet] = []
    failed = 0
    while len(new) < number and failed < _TRIES:
        child = _changed(draw.choice(parents), space, step, draw)
        failed += 1
        if isinstance(child.width, StageWidths) and (
            network(child) not in known
        ):
            known.add(network(child))
            new.append(child)
            failed = 0
    return new


def _changed(
    subnet: Subnet, space: SubnetSpace, step: float, draw: random.Random
) -> Subnet:
    """Change some stages by a step, and one time in four the size."""
    widths = list(each_width(subnet.width))
    if len(widths) == 1:
        widths *= space.stages
    changed = draw.sample(range(space.stages), draw.choice([1, 1, 2]))
    for stage in changed:
        wider = widths[stage] + draw.choice([-step, step])
        widths[stage] = round(
            min(max(wider, space.min_width), space.max_width), 6
        )
    resolution, frames = subnet.resolution, subnet.frames
    if draw.random() < 0.25:
        resolution = _beside(resolution, space.resolutions, draw)
        if space.frames is not None and frames is not None:
            frames = _beside(frames, space.frames, draw)
    return replace(
        subnet,
        width=stage_widths(widths),
        resolution=resolution,
        frames=frames,
    )


def _beside(value: int, values: Sequence[int], draw: random.Random) -> int:
    """Draw one of the values next to this one, or itself."""
    ordered = sorted({*values, value})
    place = ordered.index(value) + draw.choice([-1, 0, 1])
    return ordered[min(max(place, 0), len(ordered) - 1)]
