# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""How the subnets of a training step are drawn."""

from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from .errors import ConfigError, UsageError, is_number
from .subnet import Subnet, SubnetSpace
from .widths import each_width, stage_widths

_RAMP = 0.1
"""Share of the steps of all subnets in which their weight rises to 1."""


class SubnetSampler:
    """Draw the subnets of a training step by the sandwich rule (Sec. 3.2).

    The draw is a pure function of ``(seed, iteration)``: every rank draws
    the same, and a resumed run draws what the uninterrupted one would have.

    Args:
        space (SubnetSpace): Where to draw from.
        num_random (int): Widths drawn from the range, ``n`` of the paper;
            unused where the widths are a list. Defaults to 2.
        include_min (bool): Whether the narrowest width is in every step.
            Defaults to True.
        resolution_mode (str): ``'independent'``: the full network sees the
            full input and every other subnet draws its own;
            ``'shared'``: all of a step, the full network too, share one
            random input size. Defaults to ``'independent'``.
        seed (int): Defaults to 0.
        single_subnet (str, optional): The only subnet to train, alone (the
            paper's I-Net), such as ``'0.63x-142-3'``; its tag is ``full``.
            Defaults to None.
        stratified (bool): Whether each random width comes from a part of its
            own of the range, which is cut into ``num_random`` equal ones.
            Defaults to False.
        start (float): Share of the training that the full network learns
            alone, from 0 to below 1. Defaults to 0.

    Raises:
        ConfigError: Names the setting that is wrong, or that has no effect.
    """

    def __init__(
        self,
        space: SubnetSpace,
        num_random: int = 2,
        include_min: bool = True,
        resolution_mode: str = 'independent',
        seed: int = 0,
        single_subnet: Union[str, Subnet, None] = None,
        stratified: bool = False,
        start: float = 0.0,
    ) -> None:
        if resolution_mode not in ('independent', 'shared'):
            raise ConfigError(
                f'mutual.resolution_mode={resolution_mode!r}: '
                "use 'independent' or 'shared'"
            )
        for name, value in (('num_random', num_random), ('seed', seed)):
            if (
                isinstance(value, bool)
                or not isinstance(value, int)
                or value < 0
            ):
                raise ConfigError(
                    f'mutual.{name}={value!r}: use a whole number from 0'
                )
        for name, switch in (
            ('include_min', include_min),
            ('stratified', stratified),
        ):
            if not isinstance(switch, bool):
                raise ConfigError(
                    f'mutual.{name}={switch!r}: use True or False'
                )
        if not is_number(start) or not 0 <= start < 1:
            raise ConfigError(
                f'mutual.start={start!r}: use a share of the training, from '
                '0 to below 1'
            )
        self.space = space
        self.num_random = num_random
        self.include_min = include_min
        self.shared = resolution_mode == 'shared'
        self.seed = seed
        self.single_subnet = (
            None if single_subnet is None else space.check(single_subnet)
        )
        self.stratified = stratified
        self.start = float(start)
        self._check_effect()

    def _check_effect(self) -> None:
        """Refuse settings of subnets that are never drawn."""
        number = sum(tag.startswith('rand') for tag in self.sample(0))
        if self.stratified and number < 2:
            raise ConfigError(
                f'mutual.stratified=True: {number or "no"} width is drawn at '
                'random here, and a part of the range for each takes two; set '
                'num_random and width_range, or leave it out'
            )
        if self.space.stages > 1 and not (number or self._is_by_stage):
            alone = self.single_subnet
            remedy = (
                'set num_random, or leave it out'
                if alone is None
                else f'leave it out, {alone} is trained alone'
            )
            raise ConfigError(
                f'mutual.stages={self.space.stages}: no width is drawn at '
                f'random here, so no stage has one of its own; {remedy}'
            )
        if self.start and self.trains_one:
            raise ConfigError(
                f'mutual.start={self.start!r}: {self.primary} is trained '
                'alone from begin to end; leave start out'
            )

    @property
    def _is_by_stage(self) -> bool:
        """Whether a subnet is trained alone that has widths by stage."""
        alone = self.single_subnet
        return alone is not None and len(each_width(alone.width)) > 1

    @property
    def primary(self) -> Subnet:
        """Subnet: The one whose pass moves the running statistics."""
        return self.single_subnet or self.space.full

    @property
    def trains_one(self) -> bool:
        """bool: Whether each step is of one network."""
        return len(self.sample(0)) == 1

    @property
    def trains_full_width_alone(self) -> bool:
        """bool: Whether a single subnet is trained, of the full width."""
        trained = self.space.grid()
        if self.single_subnet is not None:
            trained = [self.single_subnet]
        return [s.width for s in trained] == [self.space.max_width]

    def choose(
        self, subnets: Union[str, Sequence[Union[str, Subnet]], None] = None
    ) -> List[Subnet]:
        """Check a list of subnets to evaluate.

        Args:
            subnets (Sequence or str, optional): Defaults to the full and the
                smallest one, or to the one that is trained alone.

        Raises:
            ConfigError: As :meth:`SubnetSpace.check`, or if one is wider than
                the one that is trained alone.
        """
        chosen = self.space.choose(subnets or self.single_subnet)
        alone = self.single_subnet
        for subnet in chosen:
            if alone is not None and _is_wider(subnet, alone):
                raise ConfigError(
                    f'subnet {subnet} is wider than {alone}, which is trained '
                    'alone: name that one, or leave mutual.single_subnet out'
                )
        return chosen

    def sample(self, iteration: int) -> Dict[str, Subnet]:
        """Subnets of step ``iteration``, keyed by tag, the full one first.

        Tags are ``full``, ``min``, ``rand1``, ``rand2``, … and, where the
        widths are a list, ``fixed1``, … from wide to narrow.
        """
        if self.single_subnet is not None:
            return {'full': self.single_subnet}
        rng = np.random.default_rng((self.seed, iteration))
        full = self.space.full
        size = self._draw_size(rng) if self.shared else None
        subnets = {
            'full': Subnet(
                full.width, *(size or (full.resolution, full.frames))
            )
        }
        for tag, width in self._draw_widths(rng):
            subnets[tag] = Subnet(width, *(size or self._draw_size(rng)))
        return subnets

    def ramp(self, iteration: int, length: Optional[int]) -> float:
        """Weight of the losses of all subnets but the full one.

        It is 0 in the first part of a training, :attr:`start`, and then grows
        linearly, to reach 1 after a tenth of what remains. Nothing is to be
        run where it is 0.

        Args:
            iteration (int): Number of the step, from 0.
            length (int, optional): Steps of the whole training, if known.

        Raises:
            UsageError: If the length is needed, and not known.
        """
        if not self.start:
            return 1.0
        if length is None:
            raise UsageError(
                f'mutual.start={self.start!r} is a share of the training, '
                "whose length a runner's max_iters says: in a loop of your "
                'own, call MessageHub.get_current_instance().update_info('
                "'max_iters', ...) before the first step, or set start=0"
            )
        # The last step at least is of all.
        begin = min(round(self.start * length), length - 1)
        rising = max(1, round(_RAMP * (length - begin)))
        return min(1.0, max(0, iteration - begin + 1) / rising)

    def _draw_widths(
        self, rng: np.random.Generator
    ) -> List[Tuple[str, float]]:
        space = self.space
        if not space.is_range:
            narrower = sorted(set(space.widths), reverse=True)[1:]
            return [(f'fixed{i + 1}', w) for i, w in enumerate(narrower)]
        widths = [('min', space.min_width)] if self.include_min else []
        low, high, n = space.min_width, space.max_width, space.stages
        parts = [(low, high)] * self.num_random
        if self.stratified:
            edges = np.linspace(low, high, self.num_random + 1)
            parts = list(zip(edges, edges[1:]))
        return widths + [
            (f'rand{i + 1}', stage_widths(rng.uniform(*part, n).tolist()))
            for i, part in enumerate(parts)
        ]

    def _draw_size(
        self, rng: np.random.Generator
    ) -> Tuple[int, Optional[int]]:
        frames = self.space.frames
        return (
            int(rng.choice(self.space.resolutions)),
            None if frames is None else int(rng.choice(frames)),
        )


def _is_wider(subnet: Subnet, other: Subnet) -> bool:
    """Whether any stage of a subnet is wider than that of another one."""
    own, theirs = each_width(subnet.width), each_width(other.width)
    number = max(len(own), len(theirs))
    if len(own) == 1:
        own *= number
    if len(theirs) == 1:
        theirs *= number
    return any(a > b for a, b in zip(own, theirs))


class GivenSubnets(SubnetSampler):
    """Takes the place of a model's sampler; each step trains the same.

    From the first step on, whatever :attr:`~SubnetSampler.start` says.

    Args:
        sampler (SubnetSampler): Whose place it takes.
        subnets (dict[str, Subnet]): By tag, ``full`` first.
    """

    def __init__(
        self, sampler: SubnetSampler, subnets: Dict[str, Subnet]
    ) -> None:
        vars(self).update(vars(sampler), start=0.0)
        self.subnets = subnets

    def sample(self, iteration: int) -> Dict[str, Subnet]:
        """Subnets of step ``iteration``, whichever it is."""
        del iteration
        return self.subnets
