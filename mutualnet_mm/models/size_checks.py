# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Resolutions at which a network does not run, found while it is built."""

from typing import Any, Optional

from ..errors import ConfigError, first_line
from ..slimmable.convert import stock_name
from ..slimmable.macs import skip_free_layers
from ..slimmable.meta import run_on_meta
from ..subnet import Subnet
from .draws import same_draws


def check_sizes(model: Any) -> None:
    """Refuse listed resolutions at which the network does not run.

    Each is tried on the meta device, where only shapes are computed: with the
    heads, as far as they run on shapes alone. A network that does not run
    there at the full resolution either is not judged.

    Args:
        model (MutualLearningMixin): As built.

    Raises:
        ConfigError: Names the resolutions, and what fails.
    """
    space = model.space
    full, *others = (
        Subnet(space.max_width, resolution, space.full.frames)
        for resolution in space.resolutions
    )
    tried = {subnet.resolution: _failure(model, subnet) for subnet in others}
    failed = {side: error for side, error in tried.items() if error}
    if failed and _failure(model, full) is None:
        least = min(failed)
        sides = ', '.join(map(str, sorted(failed)))
        raise ConfigError(
            f'{stock_name(model)} does not run at resolution {sides} of '
            f'mutual.resolution (on the meta device it fails at {least} with '
            f'"{first_line(failed[least])}"): leave it out; a detector whose '
            'maps do not fit each other needs a larger '
            'data_preprocessor.pad_size_divisor'
        )


def _failure(model: Any, subnet: Subnet) -> Optional[Exception]:
    """What goes wrong at the subnet's size; None if nothing does."""
    task, full = model.task, model.space.full.resolution

    def forward(net: Any, batch: Any) -> None:
        # Heads after proposals are not run: they depend on what is found.
        if task.forward_whole(net, batch) is None:
            task.forward_cost(net, batch)

    inputs = task.meta_input(model, subnet, (full, full))
    try:
        with model.activate(subnet), skip_free_layers(model), same_draws():
            run_on_meta(model, inputs, forward=forward)
    except Exception as error:  # whatever a stock forward may raise
        return error
    return None
