# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The gradients of a step, subnet by subnet (Sec. 3.3).

What subnets learn from each other is in the gradients of the channels that
they share: those of the step are the sum of each subnet's (Eq. 6, 7). Where
two of them point the same way, subnets learn the same; where they point in
opposite ways, one unlearns what the other learns.
"""

import copy
from contextlib import ExitStack, contextmanager
from itertools import combinations
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch import Tensor, nn

from ..engine.hooks import calibration_batches
from ..errors import ConfigError
from ..models import MutualLearningMixin
from ..models.draws import same_draws
from ..models.gradients import GradientSum
from ..models.head_state import unchanged_state
from ..models.static import static_model
from ..sampler import GivenSubnets
from ..subnet import Subnet
from .double import as_double, in_double

Gradients = Dict[str, Tensor]
"""By the name of a parameter; one that no loss reaches is missing."""

Pair = Tuple[str, str]
"""Names of two subnets."""


class StepGradients(NamedTuple):
    """Of one training step.

    Attributes:
        joint (dict): Of the sum of all losses, from one graph.
        each (dict): Of each subnet's loss alone, by ``str(subnet)``.
    """

    joint: Gradients
    each: Dict[str, Gradients]


class LayerGradients(NamedTuple):
    """Of one layer's parameters, on the channels that all subnets share.

    Means over the batches; None where a gradient is zero.

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


def step_subnets(
    model: MutualLearningMixin,
    subnets: Optional[Sequence[Union[str, Subnet]]] = None,
) -> List[Subnet]:
    """Subnets of a training step, the full network first.

    With ``resolution_mode='shared'`` (US-Net + multi-scale) the full network
    has their resolution.

    Args:
        model (MutualLearningMixin): Whose settings count.
        subnets (Sequence, optional): Beside the full network. Defaults to
            what the first step of a training draws.

    Raises:
        ConfigError: If one is outside of what the model is trained for; if
            they have several resolutions where all share one; if the full
            network is trained alone.
    """
    sampler, full = model.sampler, model.space.full
    if subnets is None:
        chosen = list(sampler.sample(0).values())
        full, chosen = chosen[0], chosen[1:]
    else:
        chosen = model.space.choose(subnets)
        if sampler.shared:
            sizes = {(s.resolution, s.frames) for s in chosen}
            if len(sizes) > 1:
                raise ConfigError(
                    f'{", ".join(map(str, chosen))}: all of a step share one '
                    "size where mutual.resolution_mode='shared'; give them "
                    "one, or set 'independent'"
                )
            full = Subnet(full.width, *sizes.pop())
    found = list(dict.fromkeys([full, *chosen]))
    if len(found) < 2 or sampler.single_subnet is not None:
        raise ConfigError(
            f'{found[0]} is trained alone: name subnets to compare it with, '
            'and leave mutual.single_subnet out'
        )
    return found


def step_gradients(
    model: MutualLearningMixin,
    inputs: Tensor,
    data_samples: Any,
    subnets: Sequence[Subnet],
) -> StepGradients:
    """Gradients of one step, of all subnets and of each alone (Eq. 6).

    Args:
        model (MutualLearningMixin): Its state is the same afterwards.
        inputs (Tensor): Preprocessed, at the full resolution.
        data_samples (Sequence): With the ground truth.
        subnets (Sequence[Subnet]): The full network first, see
            :func:`step_subnets`.
    """
    names, parameters = zip(
        *((n, p) for n, p in model.named_parameters() if p.requires_grad)
    )
    joint, each = _Joint(), _Each()
    # One graph of all: a head's counters are put back in between.
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        with _one_step(model, joint, subnets):
            model.loss(inputs, data_samples)
        found = torch.autograd.grad(
            sum(joint.losses), parameters, allow_unused=True
        )
    with _one_step(model, each, subnets):
        model.loss(inputs, data_samples)
    return StepGradients(
        _reached(names, found),
        {
            str(subnet): _reached(names, gradients)
            for subnet, gradients in zip(subnets, each.found)
        },
    )


def _reached(
    names: Sequence[str], gradients: Sequence[Optional[Tensor]]
) -> Gradients:
    pairs = zip(names, gradients)
    return {name: g.detach() for name, g in pairs if g is not None}


class _Joint(GradientSum):
    """Keeps the graphs of all losses."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: List[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Keep it: it is differentiated with the others."""
        self.losses.append(loss)


class _Each(GradientSum):
    """Keeps the gradients of each loss."""

    def __init__(self) -> None:
        super().__init__()
        self.found: List[List[Optional[Tensor]]] = []

    def add(self, loss: Tensor) -> None:
        """Differentiate one loss, and add it to no other."""
        self._gradients = [None] * len(self._parameters)
        super().add(loss)
        self.found.append(self._gradients)


@contextmanager
def _one_step(
    model: Any, gradients: GradientSum, subnets: Sequence[Subnet]
) -> Iterator[None]:
    """Train the given subnets inside; every block draws the same numbers."""
    tags = ['full', *map(str, subnets[1:])]
    given = GivenSubnets(model.sampler, dict(zip(tags, subnets)))
    before = model.sampler, model._gradients, model.training
    with torch.random.fork_rng(), same_draws(), unchanged_state(model):
        torch.manual_seed(0)
        try:
            model.sampler, model._gradients = given, gradients
            model.train()
            yield
        finally:
            model.sampler, model._gradients = before[:2]
            model.train(before[2])


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
    for name, part in static_model(numbered, subnet).named_parameters():
        masks[name].view(-1)[part.detach().flatten().long()] = True
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
    """Mean and standard deviation of the sample, of what is a number."""
    numbers = [v for v in values if v == v]
    if not numbers:
        return None, None
    spread = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return float(np.mean(numbers)), spread


def training_batches(
    cfg: Config, model: MutualLearningMixin, number: int
) -> Iterator[Tuple[Tensor, Any]]:
    """Yield batches as a training sees them, the same ones on every call.

    Args:
        cfg (Config): Its ``train_dataloader`` counts.
        model (MutualLearningMixin): Preprocesses them.
        number (int): How many at most.
    """
    hub = MessageHub.get_current_instance()
    if 'iter' not in hub.runtime_info:  # batch augmentations ask for it
        hub.update_info('iter', 0)
    for batch in calibration_batches(cfg.train_dataloader, number):
        data = model.data_preprocessor(batch, True)
        yield data['inputs'], data['data_samples']
