# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""How the subnets of a training step are drawn."""

from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from .errors import ConfigError
from .subnet import Subnet, SubnetSpace


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
    """

    def __init__(
        self,
        space: SubnetSpace,
        num_random: int = 2,
        include_min: bool = True,
        resolution_mode: str = 'independent',
        seed: int = 0,
        single_subnet: Union[str, Subnet, None] = None,
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
        if not isinstance(include_min, bool):
            raise ConfigError(
                f'mutual.include_min={include_min!r}: use True or False'
            )
        self.space = space
        self.num_random = num_random
        self.include_min = include_min
        self.shared = resolution_mode == 'shared'
        self.seed = seed
        self.single_subnet = (
            None if single_subnet is None else space.check(single_subnet)
        )

    @property
    def primary(self) -> Subnet:
        """Subnet: The one whose pass moves the running statistics."""
        return self.single_subnet or self.space.full

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
        for subnet in chosen:
            if (
                self.single_subnet is not None
                and subnet.width > self.single_subnet.width
            ):
                raise ConfigError(
                    f'subnet {subnet} is wider than {self.single_subnet}, '
                    'which is trained alone: name that one, or leave '
                    'mutual.single_subnet out'
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

    def _draw_widths(
        self, rng: np.random.Generator
    ) -> List[Tuple[str, float]]:
        space = self.space
        if not space.is_range:
            narrower = sorted(set(space.widths), reverse=True)[1:]
            return [(f'fixed{i + 1}', w) for i, w in enumerate(narrower)]
        widths = [('min', space.min_width)] if self.include_min else []
        return widths + [
            (
                f'rand{i + 1}',
                float(rng.uniform(space.min_width, space.max_width)),
            )
            for i in range(self.num_random)
        ]

    def _draw_size(
        self, rng: np.random.Generator
    ) -> Tuple[int, Optional[int]]:
        frames = self.space.frames
        return (
            int(rng.choice(self.space.resolutions)),
            None if frames is None else int(rng.choice(frames)),
        )


class GivenSubnets(SubnetSampler):
    """Takes the place of a model's sampler; each step trains the same.

    Args:
        sampler (SubnetSampler): Whose place it takes.
        subnets (dict[str, Subnet]): By tag, ``full`` first.
    """

    def __init__(
        self, sampler: SubnetSampler, subnets: Dict[str, Subnet]
    ) -> None:
        vars(self).update(vars(sampler))
        self.subnets = subnets

    def sample(self, iteration: int) -> Dict[str, Subnet]:
        """Subnets of step ``iteration``, whichever it is."""
        del iteration
        return self.subnets
