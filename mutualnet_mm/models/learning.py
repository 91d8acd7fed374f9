# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the subnets of a step learn from, and how much each of them counts."""

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Union

from ..errors import ConfigError, is_number
from ..sampler import SubnetSampler
from ..subnet import Subnet, SubnetSpace
from .teachers import AveragedTeacher, Teacher
from .trained_teacher import TrainedTeacher

_OF_KL = ('teacher', 'divergence', 'label_weight')
OPTIONS = (*_OF_KL, 'weights', 'regularize', 'distill')
"""Settings of ``mutual`` that are read here, beside ``supervision``."""


@dataclass(frozen=True)
class Learning:
    """Settings of ``mutual`` that go beyond the paper.

    The defaults are the paper's method.

    Args:
        teacher (str or dict): Whose prediction a subnet matches: ``'full'``,
            the full network's; ``'next'``, that of the next larger subnet of
            the step; ``'ema'``, that of the full network with the moving
            average of its weights; or, of a dict with ``config`` and
            ``checkpoint``, that of a trained network. Defaults to ``'full'``.
        divergence (str): How a subnet's prediction is compared with its
            teacher's: ``'kl'``, or ``'alpha'``, the adaptive
            alpha-divergence. Defaults to ``'kl'``.
        label_weight (float): Weight of the stock loss, on labels, in that of
            a subnet, beside the divergence. Defaults to 0.
        weights (str or dict, optional): Of the subnets' losses: ``'width'``,
            the width over the full one; or a number for each kind of subnet,
            ``full``, ``min``, ``rand`` and ``fixed``, those that are left
            out having 1. Defaults to None: all have 1.
        regularize (str): Which networks learn with dropout, drop path and
            smoothed labels, ``'all'`` or ``'full'``, the full one alone.
            Defaults to ``'all'``.
        distill (float): Weight of the distance of a detector's maps from the
            full network's, see :mod:`.feature_maps`, in the loss of a subnet,
            beside that on labels. Defaults to 0.

    Raises:
        ConfigError: Names the setting that is wrong.
    """

    teacher: Union[str, Mapping[str, str]] = 'full'
    divergence: str = 'kl'
    label_weight: float = 0.0
    weights: Union[str, Mapping[str, float], None] = None
    regularize: str = 'all'
    distill: float = 0.0

    @classmethod
    def read(cls, mutual: Mapping[str, Any]) -> 'Learning':
        """Take the own settings out of ``model.mutual``; None is a default."""
        values = {k: mutual[k] for k in OPTIONS if mutual.get(k) is not None}
        return cls(**values)

    def __post_init__(self) -> None:
        self._check_teacher()
        if self.divergence not in ('kl', 'alpha'):
            raise ConfigError(
                f"mutual.divergence={self.divergence!r}: use 'kl' or 'alpha'"
            )
        for name in ('label_weight', 'distill'):
            weight = getattr(self, name)
            if not is_number(weight) or weight < 0:
                raise ConfigError(
                    f'mutual.{name}={weight!r}: use a number from 0'
                )
        if self.regularize not in ('all', 'full'):
            raise ConfigError(
                f"mutual.regularize={self.regularize!r}: use 'all' or 'full'"
            )
        self._check_weights()

    def _check_teacher(self) -> None:
        if self.teacher in ('full', 'next', 'ema'):
            return
        named = self.teacher
        if (
            not isinstance(named, Mapping)
            or set(named) != {'config', 'checkpoint'}
            or not all(isinstance(v, str) for v in named.values())
        ):
            raise ConfigError(
                f"mutual.teacher={named!r}: use 'full', 'next', 'ema', or "
                "dict(config='teacher.py', checkpoint='teacher.pth')"
            )

    def _check_weights(self) -> None:
        if self.weights is None or self.weights == 'width':
            return
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise ConfigError(
                f"mutual.weights={self.weights!r}: use 'width', or numbers "
                'by the kind of subnet, as in dict(full=1.0, rand=0.5)'
            )
        for kind, weight in self.weights.items():
            if not is_number(weight) or weight <= 0:
                raise ConfigError(
                    f'mutual.weights[{kind!r}]={weight!r}: use a number above '
                    '0; include_min=False and num_random=0 leave subnets out'
                )

    def check(self, supervision: str, sampler: SubnetSampler) -> None:
        """Refuse settings that do not go together, or have no effect.

        Args:
            supervision (str): What the model's subnets learn from.
            sampler (SubnetSampler): Which subnets there are.

        Raises:
            ConfigError: Names the setting, and the remedy.
        """
        changed = self._changed()
        if changed and sampler.trains_one:
            raise ConfigError(
                f'mutual.{changed[0]}={getattr(self, changed[0])!r}: '
                f'{sampler.primary} is trained alone; leave it out'
            )
        of_kl = [name for name in changed if name in _OF_KL]
        if of_kl and supervision != 'kl':
            raise ConfigError(
                f'mutual.{of_kl[0]}={getattr(self, of_kl[0])!r}: subnets '
                f'learn from labels here, with supervision={supervision!r}; '
                "leave it out, or set supervision='kl' where the model can"
            )
        if self.teacher == 'next' and len(sampler.sample(0)) < 3:
            raise ConfigError(
                "mutual.teacher='next': a step has one subnet beside the full "
                'network, so that is the next larger one: leave it out, or '
                'train more subnets'
            )
        if isinstance(self.weights, Mapping):
            kinds = list(dict.fromkeys(map(_kind, sampler.sample(0))))
            unknown = [k for k in self.weights if k not in kinds]
            if unknown:
                raise ConfigError(
                    f'mutual.weights names {unknown[0]!r}: the subnets of a '
                    f'step are {", ".join(kinds)}'
                )

    def _changed(self) -> List[str]:
        """Names of the settings that are not the paper's."""
        plain = Learning.__dataclass_fields__
        return [n for n in OPTIONS if getattr(self, n) != plain[n].default]

    def make_teacher(self) -> Optional[Teacher]:
        """Return a teacher that is none of a step's networks, if there is."""
        if isinstance(self.teacher, Mapping):
            return TrainedTeacher(**self.teacher)
        return AveragedTeacher() if self.teacher == 'ema' else None

    def ordered(
        self, subnets: Mapping[str, Subnet], space: SubnetSpace
    ) -> Dict[str, Subnet]:
        """Bring the subnets of a step into the order of their passes.

        Where each is the teacher of the next, that is from large to small:
        by the multiply-accumulates of the paper's Eq. 2 (video: Eq. 9).

        Args:
            subnets (Mapping[str, Subnet]): By tag, the full one first.
            space (SubnetSpace): All subnets.
        """
        tags = list(subnets)
        if self.teacher == 'next':
            tags[1:] = sorted(
                tags[1:], key=lambda tag: -space.relative_cost(subnets[tag])
            )
        return {tag: subnets[tag] for tag in tags}

    def weight(self, tag: str, subnet: Subnet, full_width: float) -> float:
        """Weight of a subnet's loss in the sum over all.

        Args:
            tag (str): As :meth:`~.sampler.SubnetSampler.sample` has it.
            subnet (Subnet): Which one.
            full_width (float): The largest width.
        """
        if self.weights == 'width':
            return subnet.width / full_width
        numbers = self.weights if isinstance(self.weights, Mapping) else {}
        return float(numbers.get(_kind(tag), 1.0))


def _kind(tag: str) -> str:
    """``'rand'`` of ``'rand2'``."""
    return tag.rstrip('0123456789')
