# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The ``mutual`` settings of a config."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Dict, Mapping, Optional

from ..errors import ConfigError
from ..sampler import SubnetSampler
from ..subnet import Subnet, SubnetSpace
from .learning import OPTIONS, Learning

_SPACE = ('width_range', 'widths', 'resolution', 'frames', 'norm', 'stages')
_SAMPLER = (
    *('num_random', 'include_min', 'resolution_mode', 'seed'),
    *('single_subnet', 'stratified', 'start'),
)
_OTHERS = ('supervision', 'rounding', *OPTIONS)


@dataclass
class MutualSettings:
    """What ``model.mutual`` may hold.

    - width_range (Sequence[float]): Least and largest width. Defaults to
      ``(0.25, 1.0)``.
    - widths (Sequence[float]): In place of a range, a fixed list of widths.
    - resolution (Sequence[int]): The full one first: a side of the crops that
      a pipeline of images or clips makes, of a detector the short edge (or
      side) that its test pipeline resizes to. A subnet of another sees what
      the pipeline delivers scaled by it over the full one.
    - frames (Sequence[int], optional): For video, the full one first.
    - num_random (int): Random widths of a step. Defaults to 2.
    - include_min (bool): Whether the narrowest width is in every step.
      Defaults to True.
    - resolution_mode (str): ``'independent'`` or ``'shared'``. Defaults to
      ``'independent'``.
    - seed (int): Seed of the subnet sampling. Defaults to 0.
    - single_subnet (str): The only subnet to train, on labels: the baseline
      of a network of that one configuration (I-Net). Defaults to None.
    - supervision (str): ``'kl'`` (subnets match the full network's
      prediction) or ``'label'``. Defaults to ``'kl'`` where the model can,
      else to ``'label'``.
    - rounding (str): ``'paper'`` or ``'hardware'``. Defaults to the
      backbone's.

    Options that go beyond the paper; a page of ``docs/methods`` each:

    - start (float): Share of the training that the full network learns
      alone. Defaults to 0.
    - teacher (str or dict): Whose predictions subnets match, ``'full'``,
      ``'next'``, ``'ema'``, or that of a trained network, as in
      ``dict(config=..., checkpoint=...)``. Defaults to ``'full'``.
    - label_weight (float): Weight of the labels' loss in that of a subnet,
      beside the divergence. Defaults to 0.
    - stratified (bool): Whether each random width comes from a part of its
      own of the range. Defaults to False.
    - divergence (str): How predictions are compared, ``'kl'`` or
      ``'alpha'``. Defaults to ``'kl'``.
    - regularize (str): Which networks learn with dropout, drop path and
      smoothed labels, ``'all'`` or ``'full'``. Defaults to ``'all'``.
    - distill (float): Weight of the distance of a detector's maps from the
      full network's in the loss of a subnet. Defaults to 0.
    - norm (str): Whether batch norms have one weight and bias for all
      resolutions, ``'shared'``, or one for each, ``'per-resolution'``.
      Defaults to ``'shared'``.
    - stages (int): Stages of the backbone, each of which draws a width of its
      own for the random subnets. Defaults to 1: they share one.
    - weights (str or dict): Weights of the subnets' losses, see
      :class:`~.learning.Learning`.
    """

    space: SubnetSpace
    sampler: SubnetSampler
    supervision: Optional[str]
    rounding: Optional[str]
    learning: Learning

    @classmethod
    def read(cls, mutual: Optional[dict]) -> 'MutualSettings':
        """Read the dict of a config.

        Raises:
            ConfigError: Names the setting that is missing, misspelt or wrong.
        """
        if not isinstance(mutual, dict) or 'resolution' not in mutual:
            raise ConfigError(
                f'mutual={mutual!r}: list the resolutions to train, the full '
                'one first, as in mutual=dict(resolution=(224, 192, 160, 128))'
            )
        known = _SPACE + _SAMPLER + _OTHERS
        for key in mutual:
            if key not in known:
                near = get_close_matches(key, known) or known
                raise ConfigError(
                    f'mutual.{key} is unknown, use {" or ".join(near)}'
                )
        values = dict(mutual)
        if all(values.get(k) is None for k in ('width_range', 'widths')):
            values['width_range'] = (0.25, 1.0)
        space = SubnetSpace(**{k: values[k] for k in _SPACE if k in values})
        return cls(
            space,
            SubnetSampler(
                space, **{k: values[k] for k in _SAMPLER if k in values}
            ),
            values.get('supervision'),
            values.get('rounding'),
            Learning.read(values),
        )


def acting_settings(model: Any) -> Dict[str, Any]:
    """What a model is trained by, in plain values: defaults are filled in.

    Args:
        model (MutualLearningMixin): Whose parts were made of
            :class:`MutualSettings`.

    Returns:
        dict: By the names that ``model.mutual`` has them under.
    """
    space, sampler = model.space, model.sampler
    widths = 'width_range' if space.is_range else 'widths'
    values = {
        **dict(width_range=None, widths=None),
        widths: space.widths,
        'resolution': space.resolutions,
        'frames': space.frames,
        'norm': space.norm,
        'stages': space.stages,
        **{k: getattr(sampler, k, None) for k in _SAMPLER},
        'resolution_mode': 'shared' if sampler.shared else 'independent',
        'supervision': model.supervision,
        'rounding': model.slim_state.rounding,
        **{k: getattr(model.learning, k) for k in OPTIONS},
    }
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """Value without classes of configs, which a checkpoint may not hold."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Subnet) else value
