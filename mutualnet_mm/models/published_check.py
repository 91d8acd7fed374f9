# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Whether the network of a config is the published one, at every width."""

from contextlib import ExitStack
from typing import Any, Dict, List, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import ConfigError, UsageError
from ..slimmable import BatchNormCollector, Statistics
from ..slimmable.meta import evaluating
from ..subnet import Subnet
from .published import family_of, layer_names, rename
from .published_formula import PublishedNetwork

Outputs = Dict[str, Tensor]
"""What each batch norm gives, by the model's name for it, and the logits."""

_LOGITS = 'head.fc'
_TOLERANCE = 1e-9  # relative, in double precision
_STEP = 0.025  # of the widths that are tried


def check_same_network(model: Any, published: Mapping[str, Tensor]) -> None:
    """Refuse a config whose network is not the published one.

    The channels of all layers are compared at every width in steps of 0.025,
    and their outputs for random images at the widest and the narrowest. The
    weights are random ones, that reach every part of an activation.

    Args:
        model (MutualLearningMixin): It has these weights afterwards.
        published (Mapping): As
            :func:`~mutualnet_mm.models.published_file.read_published` returns
            them, of the shapes of the model.

    Raises:
        ConfigError: Names the width and the first layer that differs.
    """
    space = model.space
    weights = _random_weights(published)
    load = {**model.state_dict(), **rename(model, weights).weights}
    model.load_state_dict(load, strict=True)
    images = _images(model)
    for width in _widths(space.min_width, space.max_width, _STEP):
        theirs = _theirs(model, weights, width, images)
        for name, ours in _ours(model, width, images).items():
            if ours.shape[1] != theirs[name].shape[1]:
                raise ConfigError(
                    f'{name} has {ours.shape[1]} channels at width {width}, '
                    f'in the published network {theirs[name].shape[1]}: use '
                    "rounding='paper' (divisor 8), and a backbone that is "
                    'built at a width of 1 or 2'
                )
    model.double()
    images = _images(model, 2).double()
    exact = {k: v.double() for k, v in weights.items()}
    for width in (space.max_width, space.min_width):
        theirs = _theirs(model, exact, width, images)
        for name, ours in _ours(model, width, images).items():
            if not _is_equal(ours, theirs[name]):
                raise ConfigError(
                    'the network of the config is not the published one: at '
                    f'width {width}, {name} is the first layer that gives '
                    'something else; compare activations, strides, paddings '
                    'and eps (1e-5) up to there'
                )
    model.float()


def _random_weights(published: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Random tensors of the same shapes; statistics stay as they are."""
    generator = torch.Generator().manual_seed(0)
    weights = dict(published)
    for name, value in published.items():
        if name.endswith(('.weight', '.bias')):
            values = torch.randn(value.shape, generator=generator)
            # Of batch norms, for maps of about zero to ten.
            weights[name] = values / value[0].numel() ** 0.5
            if value.dim() == 1:
                weights[name] = values.abs() + 2
    return weights


def _is_equal(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    error = (ours - theirs).abs().max()
    return bool(error <= _TOLERANCE * theirs.abs().max())


def widths_of(
    model: Any,
    published: Mapping[str, Tensor],
    statistics: Sequence[Statistics],
) -> List[List[float]]:
    """Find the widths of statistics by their numbers of channels.

    Widths that round to the same channels in all layers are one subnet.

    Args:
        model (MutualLearningMixin): Of the same network.
        published (Mapping): Tensors by the published names.
        statistics (Sequence): Of one width each, by the model's names.

    Returns:
        list: For each all such widths, in the coarsest steps of 0.025, 0.01
        and 0.001 in which there are any.

    Raises:
        UsageError: If no width has these channels.
    """
    images = _images(model)
    found: List[List[float]] = [[] for _ in statistics]
    top = model.slim_state.max_width
    for step in (_STEP, 0.01, 0.001):
        missing = [i for i, widths in enumerate(found) if not widths]
        for width in _widths(step, top, step) if missing else ():
            seen = _theirs(model, published, width, images)
            channels = [seen[name].shape[1] for name in statistics[0]]
            for i in missing:
                own = [len(mean) for mean, _ in statistics[i].values()]
                if own == channels:
                    found[i].append(width)
    for widths, bank in zip(found, statistics):
        if not widths:
            sizes = ', '.join(str(len(mean)) for mean, _ in bank.values())
            raise UsageError(
                'the checkpoint keeps statistics of batch norms of '
                f'{sizes[:30]}, ... channels, which no width has with the '
                'divisor 8 of the published weights: it was trained with '
                'another one, and its narrower networks are others'
            )
    return found


def _widths(low: float, high: float, step: float) -> List[float]:
    """Both ends, and the multiples of ``step`` that lie between them."""
    per_unit = round(1 / step)
    numbers = range(1, int(high * per_unit) + 1)
    inner = [n / per_unit for n in numbers]
    return sorted({low, high, *(w for w in inner if low <= w <= high)})


def _images(model: Any, scale: int = 1) -> Tensor:
    """Two random images; times ``scale``, as large as the network needs."""
    size = scale * family_of(model).size
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, size, size, generator=generator)


@torch.no_grad()
def _theirs(
    model: Any, published: Mapping[str, Tensor], width: float, images: Tensor
) -> Outputs:
    top = model.slim_state.max_width
    network = PublishedNetwork(published, width, top)
    logits = family_of(model).logits(network, images)
    names = dict(layer_names(model))
    seen = {names[name]: output for name, output in network.seen.items()}
    return {**seen, _LOGITS: logits}


@torch.no_grad()
def _ours(model: Any, width: float, images: Tensor) -> Outputs:
    """Run the model, its batch norms on the statistics of the batch."""
    seen: Outputs = {}
    subnet = Subnet(width, model.space.full.resolution)
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(model.activate(subnet))
        for name in [ours for _, ours in layer_names(model)]:
            layer = model.get_submodule(name)
            if hasattr(layer, 'running_mean'):
                handle = layer.register_forward_hook(_keep(seen, name))
                stack.callback(handle.remove)
        stack.enter_context(BatchNormCollector(model).watch())
        logits = model(images, mode='tensor')
    return {**seen, _LOGITS: logits}


def _keep(seen: Outputs, name: str) -> Any:
    def hook(layer: Any, inputs: Any, output: Tensor) -> None:
        del layer, inputs
        seen[name] = output.clone()  # activations change it in place

    return hook
