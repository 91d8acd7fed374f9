# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Batch norms with a weight and a bias for each resolution."""

from typing import Any, Dict, Mapping, Tuple

from torch.nn.parallel import DistributedDataParallel

from ..errors import ConfigError, UsageError
from ..sampler import SubnetSampler
from ..slimmable import slim_batch_norms
from ..slimmable.convert import stock_name
from ..slimmable.private_affines import private_affines, private_names
from ..subnet import Subnet
from .wraps import Stock

_NAME = "mutual.norm='per-resolution'"


class ResolutionNorms(Stock):
    """Initialises and loads what batch norms have for each resolution.

    A part of :class:`~.mutual.MutualLearningMixin`.
    """

    def init_weights(self) -> None:
        """Initialise as the stock class does, alike at all resolutions."""
        was_done = self.is_init
        super().init_weights()
        for layer, affine in private_affines(self):
            if not was_done and not affine.is_loaded:
                affine.start_with(layer)

    def _load_from_state_dict(self, *args: Any) -> None:
        if '_built' in self.__dict__:
            self._built.adopt()  # others would not know the resolutions
        super()._load_from_state_dict(*args)


def add_resolution_norms(model: Any, sampler: SubnetSampler) -> None:
    """Give the batch norms of a model a weight and a bias per resolution.

    Their own are those of the full one, under the stock keys.

    Args:
        model (MutualLearningMixin): With its space; its layers are slimmable.
        sampler (SubnetSampler): Which subnets are trained.

    Raises:
        ConfigError: If that has no effect.
    """
    space = sampler.space
    smaller = [r for r in space.resolutions if r != space.full.resolution]
    draws_one = sampler.trains_one and not sampler.shared
    if sampler.single_subnet is not None or draws_one or not smaller:
        raise ConfigError(
            f'{_NAME}: a single resolution is trained; leave it out'
        )
    layers = [m for _, m in slim_batch_norms(model) if m.weight is not None]
    if not layers:
        raise ConfigError(
            f'{_NAME}: {stock_name(model)} has no batch norm with a weight '
            'and a bias; leave it out'
        )
    names = {r / space.full.resolution: _name(r) for r in smaller}
    for layer in layers:
        layer.add_affines(names)


def stored_names(model: Any, subnet: Subnet) -> Dict[str, str]:
    """What a subnet's batch norms take in place of their weight and bias.

    Args:
        model (MutualLearningMixin): With its layers.
        subnet (Subnet): Names the resolution.

    Returns:
        dict: Names of parameters, by those that they stand for; empty at the
        full resolution, and where all resolutions share theirs.
    """
    return {
        shared: own
        for own, shared in private_names(model).items()
        if own.split('.')[-2] == _name(subnet.resolution)
    }


def _name(resolution: int) -> str:
    return f'at_{resolution}'


def check_reducer() -> None:
    """Refuse a parallel wrapper that waits for the gradients of all weights.

    A step draws some of the resolutions alone.

    Raises:
        UsageError: Names the setting.
    """
    wrapper = getattr(DistributedDataParallel, '_active_ddp_module', None)
    if wrapper is not None and not wrapper.find_unused_parameters:
        raise UsageError(
            f'{_NAME}: a step does not draw all resolutions, so that not all '
            'parameters get a gradient in it: set find_unused_parameters=True '
            'in the config'
        )


def check_same_norms(model: Any, metadata: Mapping[str, Any]) -> None:
    """Refuse to resume with batch norms of other resolutions.

    The optimizer knows its parameters by their order: it would have another
    number of them than it saved, or take the momenta of others.

    Args:
        model (nn.Module): That is to be trained.
        metadata (Mapping): Beside the weights of the whole model. If it does
            not say what they were trained for, it passes.

    Raises:
        UsageError: Says what both have.
    """
    found, own = tuple(metadata.get('norms') or ()), own_norms(model)
    if metadata.get('widths') is not None and found != own:
        raise UsageError(
            f'the checkpoint has batch norms for {_said(found)}, the config '
            f'for {_said(own)}, so training cannot go on: resume with '
            'mutual.norm and resolution as in the training, or start anew, '
            'with load_from and without resume'
        )


def own_norms(model: Any) -> Tuple[int, ...]:
    """Resolutions with batch norms of their own; empty if all share one."""
    space: Any = getattr(model, 'space', None)  # a stock model has none
    is_own = getattr(space, 'norm', None) == 'per-resolution'
    return tuple(space.resolutions) if is_own else ()


def _said(norms: Tuple[int, ...]) -> str:
    return ', '.join(map(str, norms)) or 'all resolutions together'
