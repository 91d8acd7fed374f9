# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The active subnet: one value that a whole module tree shares."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Iterator, List, Optional

from torch import nn

from ..errors import ConfigError
from ..widths import each_width
from .channels import check_rounding
from .leaves import Leaves


@dataclass
class SlimState:
    """What the slim layers of one module tree read at run time.

    Every layer of the tree holds the *same* object, so a switch is one
    assignment, and copies (EMA, deepcopy) keep the sharing.

    Args:
        max_width (float): Width that the layers were built at.
            Defaults to 1.0.
        rounding (str): Rounding policy. Defaults to ``'paper'``.
        scale (float): Active resolution over the full one, for networks
            that resize inside, and for batch norms with a weight and a bias
            for each. Defaults to 1.0.
        frames (int, optional): Active frames, likewise. Defaults to None,
            all.
        track_stats (bool): Whether a training forward updates the running
            statistics. Defaults to True.
        running_stats (bool): Whether a narrow width may be evaluated with the
            leading running statistics, which are the full network's.
            Defaults to True; :func:`~.slim.slim` forbids it.
        stages (int): Stages that may have a width of their own. Defaults to
            1: all have the same.

    Attributes:
        width (float): Active width, ``max_width`` at first.
        is_active (bool): Whether a subnet was made active for a while, see
            :meth:`activate`.
        leaves (Leaves, optional): Set while a subnet is trained, for parts of
            parameters to be leaves of its graph. None otherwise.
    """

    max_width: float = 1.0
    rounding: str = 'paper'
    scale: float = 1.0
    frames: Optional[int] = None
    track_stats: bool = True
    running_stats: bool = True
    stages: int = 1
    width: float = field(init=False)
    is_active: bool = field(init=False, compare=False)
    leaves: Optional[Leaves] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        check_rounding(self.rounding)
        number = isinstance(self.max_width, (int, float))
        if not number or not self.max_width > 0:
            raise ConfigError(
                f'max_width={self.max_width!r} is not a positive number'
            )
        self.width = self.max_width
        self.is_active, self.leaves = False, None

    def check_width(self, width: float) -> None:
        """Refuse a width that the layers do not have."""
        widths = each_width(width)
        if len(widths) not in (1, self.stages):
            raise ConfigError(
                f'width {width}: the network has {self.stages} stages with a '
                'width of their own'
            )
        if not 0 < min(widths) <= max(widths) <= self.max_width:
            raise ConfigError(
                f'width {width} is outside of (0, {self.max_width}], the '
                'widths that this network was built for: a wider one needs a '
                'wider base network and its max_width'
            )

    def set_width(self, width: float) -> None:
        """Make ``width`` active, refusing one the layers do not have."""
        self.check_width(width)
        self.width = width

    def set(
        self, width: float, scale: float = 1.0, frames: Optional[int] = None
    ) -> None:
        """Make a subnet active for good: its width, scale and frames."""
        self.set_width(width)
        self.scale, self.frames = scale, frames

    @contextmanager
    def activate(
        self,
        width: float,
        scale: float = 1.0,
        frames: Optional[int] = None,
        track_stats: bool = True,
        running_stats: Optional[bool] = None,
    ) -> Iterator[None]:
        """Make a subnet active for the length of a ``with`` block.

        ``running_stats`` stays as it is by default.
        """
        before = dict(vars(self))
        self.set(width, scale, frames)
        self.is_active, self.track_stats = True, track_stats
        if running_stats is not None:
            self.running_stats = running_stats
        try:
            yield
        finally:
            vars(self).update(before)


def slim_states(module: nn.Module) -> List[SlimState]:
    """Return the states of the slim layers in ``module``, each one once.

    Raises:
        ConfigError: If the module has no slim layer.
    """
    states = {
        id(m.slim_state): m.slim_state
        for m in module.modules()
        if hasattr(m, 'slim_state')
    }
    if not states:
        raise ConfigError(
            f'{type(module).__name__} has no slimmable layer: convert it first'
        )
    return list(states.values())


def set_width(module: nn.Module, width: float) -> None:
    """Set the active width of all slim layers in ``module``.

    Layers that share a state with ``module``'s but lie outside of it follow.

    Raises:
        ConfigError: If there are no slim layers, or ``width`` is not in
            ``(0, max_width]``.
    """
    states = slim_states(module)
    for state in states:  # all or none
        state.check_width(width)
    for state in states:
        state.set_width(width)


@contextmanager
def active_width(module: nn.Module, width: float) -> Iterator[None]:
    """:func:`set_width` for the length of a ``with`` block."""
    states = slim_states(module)
    before = [state.width for state in states]
    try:
        for state in states:
            state.set_width(width)
        yield
    finally:
        for state, old in zip(states, before):
            state.width = old
