# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The gradients of a step, subnet by subnet (Sec. 3.3).

What subnets learn from each other is in the gradients of the channels that
they share: those of the step are the sum of each subnet's (Eq. 6, 7). Where
two of them point the same way, subnets learn the same; where they point in
opposite ways, one unlearns what the other learns.
"""

import copy
from contextlib import ExitStack
from itertools import combinations
from typing import (
    Any,
    Dict,
    Iterable,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, UsageError
from ..models import MutualLearningMixin
from ..models.resolution_norms import stored_names
from ..models.static import static_model
from ..subnet import Subnet
from .double import as_double, in_double
from .step_gradients import Gradients, step_gradients

Pair = Tuple[str, str]
"""Names of two subnets."""


class LayerGradients(NamedTuple):
    """Of one layer's parameters, on the channels that all subnets share.

    Means over the batches; None where a gradient is zero in one of them.

    Attributes:
        name (str): As in the model.
        shared (int): Parameters that all subnets use.
        total (int): Parameters of the full network.
        norms (dict): Euclidean norm of each subnet's gradient.
        cosines (dict): Of the angle between the gradients of two subnets,
            and its standard deviation over the batches (None for one).
        is_matrix (bool): Whether it is a convolution or linear layer, or
            another with a matrix; batch norms are not.
    """

    name: str
    shared: int
    total: int
    norms: Dict[str, float]
    cosines: Dict[Pair, Tuple[Optional[float], Optional[float]]]
    is_matrix: bool


class Decomposition(NamedTuple):
    """Where the subnets of a step agree, and where they conflict.

    Attributes:
        subnets (list[str]): Names, the full network first.
        layers (list[LayerGradients]): In the order of the model.
        whole (LayerGradients): All parameters that subnets share, as one.
        difference (float): Largest one between the gradient of the step and
            the sum of the subnets' (Eq. 6), of any parameter and batch.
        largest (float): Largest value of a gradient, to compare it with.
        outside (float): Largest value of a subnet's gradient in channels
            that it does not have (Eq. 7): zero.
        num_batches (int): That this is the mean of.
    """

    subnets: List[str]
    layers: List[LayerGradients]
    whole: LayerGradients
    difference: float
    largest: float
    outside: float
    num_batches: int

    @property
    def matrices(self) -> List[LayerGradients]:
        """The convolutions and linear layers."""
        return [layer for layer in self.layers if layer.is_matrix]

    def median(self, pair: Pair) -> Optional[float]:
        """Median of the cosines of two subnets over :attr:`matrices`.

        The cosine of :attr:`whole` is that of the layers with the largest
        gradients, often of one alone; here each layer counts the same.

        Args:
            pair (tuple[str]): Names of two subnets.

        Returns:
            float or None: None if no layer has a cosine.
        """
        cosines = [layer.cosines[pair][0] for layer in self.matrices]
        known = [cosine for cosine in cosines if cosine is not None]
        return float(np.median(known)) if known else None


def used_parameters(
    model: MutualLearningMixin, subnet: Union[str, Subnet]
) -> Dict[str, Tensor]:
    """Which values of each parameter a subnet uses.

    Args:
        model (MutualLearningMixin): It is not changed.
        subnet (str or Subnet): Such as ``'0.4x-128'``.

    Returns:
        dict: A mask in the shape of each parameter, by its name.
    """
    # A network whose weights are their own numbers, cut to the subnet.
    numbered = copy.deepcopy(model).double()
    with torch.no_grad():
        for parameter in numbered.parameters():
            numbers = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_(numbers.view_as(parameter))
    masks = {
        name: torch.zeros(p.shape, dtype=torch.bool, device=p.device)
        for name, p in model.named_parameters()
    }
    names = stored_names(model, Subnet.parse(subnet))
    for name, part in static_model(numbered, subnet).named_parameters():
        masks[names.get(name, name)].view(-1)[
            part.detach().flatten().long()
        ] = True
    return masks


def decompose(
    model: MutualLearningMixin,
    batches: Iterable[Tuple[Tensor, Any]],
    subnets: Sequence[Subnet],
    double: bool = True,
) -> Decomposition:
    """Compare the gradients of subnets, layer by layer (Eq. 6, 7).

    Args:
        model (MutualLearningMixin): As trained or as initialised. It is not
            changed.
        batches (Iterable): Pairs of preprocessed inputs and data samples.
        subnets (Sequence[Subnet]): See :func:`step_subnets`.
        double (bool): Whether to compute in double precision, which a few
            heads refuse. Defaults to True.

    Raises:
        ConfigError: If there is no batch, or if the model cannot run in
            double precision.
        UsageError: If a gradient is not finite.
    """
    model = copy.deepcopy(model)
    if double:
        model.double()
    names = list(map(str, subnets))
    masks = [used_parameters(model, subnet) for subnet in subnets]
    shared = {
        name: torch.stack([mask[name] for mask in masks]).all(0)
        for name in masks[0]
    }
    groups = _by_layer(model)
    found: List[List[Tuple[Dict[str, float], Dict[Pair, float]]]] = []
    differences, values, outside = [0.0], [0.0], [0.0]
    for inputs, samples in batches:
        with ExitStack() as stack:
            if double:
                stack.enter_context(in_double())
                inputs, samples = as_double(inputs), as_double(samples)
            joint, each = step_gradients(model, inputs, samples, subnets)
        for parameter, gradient in joint.items():
            if not gradient.isfinite().all():
                raise UsageError(
                    f'the gradient of {parameter} is not finite: take an '
                    'earlier checkpoint, or other batches'
                )
            parts = [g[parameter] for g in each.values() if parameter in g]
            summed = torch.stack(parts).sum(0)
            differences.append((gradient - summed).abs().max().item())
            values.append(gradient.abs().max().item())
        for own, mask in zip(each.values(), masks):
            outside += [
                (g * ~mask[parameter]).abs().max().item()
                for parameter, g in own.items()
            ]
        found.append([_compare(each, shared, group) for group in groups])
    if not found:
        raise ConfigError('there is no batch to take gradients of')
    layers = [
        LayerGradients(
            _layer_of(group[0]),
            sum(int(shared[p].sum()) for p in group),
            sum(shared[p].numel() for p in group),
            {n: float(np.mean([f[0][n] for f in of])) for n in names},
            {
                pair: _mean([f[1][pair] for f in of])
                for pair in combinations(names, 2)
            },
            any(shared[p].dim() > 1 for p in group),
        )
        for group, of in zip(groups, zip(*found))
    ]
    return Decomposition(
        names,
        layers[:-1],
        layers[-1]._replace(name='all layers'),
        max(differences),
        max(values),
        max(outside),
        len(found),
    )


def _layer_of(parameter: str) -> str:
    return parameter.rpartition('.')[0] or parameter


def _by_layer(model: nn.Module) -> List[List[str]]:
    """Names of the parameters of each layer; last, those of all."""
    groups: Dict[str, List[str]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_layer_of(name), []).append(name)
    return [*groups.values(), [n for group in groups.values() for n in group]]


def _compare(
    each: Dict[str, Gradients],
    shared: Dict[str, Tensor],
    parameters: Sequence[str],
) -> Tuple[Dict[str, float], Dict[Pair, float]]:
    """Norms and cosines on what is shared of some parameters."""
    vectors = {
        name: torch.cat([_of(own, p, shared[p]) for p in parameters])
        for name, own in each.items()
    }
    norms = {name: v.norm().item() for name, v in vectors.items()}
    cosines = {
        (a, b): (
            vectors[a].dot(vectors[b]).item() / (norms[a] * norms[b])
            if norms[a] * norms[b] > 0
            else float('nan')
        )
        for a, b in combinations(vectors, 2)
    }
    return norms, cosines


def _of(gradients: Gradients, parameter: str, mask: Tensor) -> Tensor:
    """What a mask leaves of a gradient, zeros where no loss reaches it."""
    if parameter in gradients:
        return gradients[parameter][mask].double()
    return mask[mask].double() * 0


def _mean(
    values: Sequence[float],
) -> Tuple[Optional[float], Optional[float]]:
    """Mean and standard deviation of a sample, if all of it are numbers."""
    if np.isnan(values).any():
        return None, None
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), spread
