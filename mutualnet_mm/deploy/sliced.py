# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A network that switches between its subnets without extra memory."""

from typing import Any, Optional

import torch
from torch import Tensor

from ..models import MutualLearningMixin
from ..slimmable import Statistics, share_weights, slim_batch_norms
from ..subnet import Subnet


class SlicedNetwork:
    """A separate module tree that shares the weights of a network.

    Args:
        origin (MutualLearningMixin): Network whose weights to run. It is not
            changed.

    Attributes:
        model (MutualLearningMixin): The tree.
        subnet (Subnet): The active one, at first the one that the running
            statistics belong to.
    """

    def __init__(self, origin: MutualLearningMixin) -> None:
        self.model: Any = share_weights(origin)
        self._norms = list(slim_batch_norms(self.model))
        self.switch(self.model.sampler.primary, None)

    def switch(self, subnet: Subnet, statistics: Optional[Statistics]) -> None:
        """Make a subnet active: a few attributes are set, nothing is copied.

        Args:
            subnet (Subnet): Which one.
            statistics (dict, optional): Statistics of its batch norms; None
                means the running ones.
        """
        model = self.model
        model.slim_state.set(
            subnet.width, model.input_scale(subnet), subnet.frames
        )
        for name, layer in self._norms:
            # Bypass the checks of nn.Module, which take most of a switch.
            layer.__dict__['subnet_stats'] = (statistics or {}).get(name)
        self.subnet = subnet

    @torch.no_grad()
    def __call__(self, inputs: Tensor, samples: list, mode: str) -> list:
        """Run the active subnet on a batch at the full resolution."""
        task = self.model.task
        task.check_test(self.model, inputs, samples)
        resized = task.resize(self.model, inputs, samples, self.subnet)
        return self.model(*resized, mode=mode)
