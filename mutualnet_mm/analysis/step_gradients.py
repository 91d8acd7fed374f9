# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The gradients of one training step, subnet by subnet (Eq. 6)."""

from contextlib import contextmanager
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch import Tensor

from ..engine.hooks import calibration_batches
from ..errors import ConfigError
from ..models import MutualLearningMixin
from ..models.draws import same_draws
from ..models.gradients import GradientSum
from ..models.head_state import unchanged_state
from ..sampler import GivenSubnets
from ..subnet import Subnet

Gradients = Dict[str, Tensor]
"""By the name of a parameter; one that no loss reaches is missing."""


class StepGradients(NamedTuple):
    """Of one training step.

    Attributes:
        joint (dict): Of the sum of all losses, from one graph.
        each (dict): Of each subnet's loss alone, by ``str(subnet)``.
    """

    joint: Gradients
    each: Dict[str, Gradients]


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
    tagged = model.learning.ordered(_tagged(model, subnets), model.space)
    # One graph of all: a head's counters are put back in between.
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        with _one_step(model, joint, tagged):
            model.loss(inputs, data_samples)
        found = torch.autograd.grad(
            sum(joint.losses), parameters, allow_unused=True
        )
    with _one_step(model, each, tagged):
        model.loss(inputs, data_samples)
    by_subnet = dict(zip(tagged.values(), each.found))
    return StepGradients(
        _reached(names, found),
        {str(s): _reached(names, by_subnet[s]) for s in subnets},
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

    def start(self, parameters: Sequence[Tensor]) -> None:
        """Let the graphs lead to the whole parameters."""
        super().start(parameters)
        self.leaves = None

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
        self.clear()
        super().add(loss)
        self.found.append(self._gradients)


def _tagged(
    model: MutualLearningMixin, subnets: Sequence[Subnet]
) -> Dict[str, Subnet]:
    """Name the kind of each subnet, which its weight may go by."""
    space, tagged = model.space, {'full': subnets[0]}
    for i, subnet in enumerate(subnets[1:], 1):
        kind = 'rand' if space.is_range else 'fixed'
        if space.is_range and subnet.width == space.min_width:
            kind = 'min'
        tagged[f'{kind}{i}'] = subnet
    return tagged


@contextmanager
def _one_step(
    model: Any, gradients: GradientSum, subnets: Dict[str, Subnet]
) -> Iterator[None]:
    """Train the given subnets inside; every block draws the same numbers."""
    given = GivenSubnets(model.sampler, subnets)
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
