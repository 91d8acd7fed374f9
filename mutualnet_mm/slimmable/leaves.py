# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Active parts of parameters, as leaves of the graph of one pass.

To differentiate through a slice costs a tensor of zeros as large as the whole
parameter, for each axis that is sliced, and then its addition to the gradients
of the other subnets. A leaf gets the gradient of its part alone, which is
added where it belongs.
"""

from typing import List, Sequence, Tuple

from torch import Tensor

from .channels import Ranges, take


class Leaves:
    """The leaves of a pass, and which parts of which parameters they are.

    It is for whoever differentiates with regard to them: a pass with leaves
    leaves the parameters themselves without a gradient.
    """

    def __init__(self) -> None:
        self._found: List[Tuple[Tensor, Tuple[Ranges, ...], Tensor]] = []

    def make(self, parameter: Tensor, ranges: Tuple[Ranges, ...]) -> Tensor:
        """Return a leaf that shares the memory of a part of a parameter.

        Args:
            parameter (Tensor): The whole one.
            ranges (tuple): What is taken along its first axes, one range
                each.
        """
        leaf = take_all(parameter.detach(), ranges).requires_grad_()
        self._found.append((parameter, ranges, leaf))
        return leaf

    def take(self) -> List[Tuple[Tensor, Tuple[Ranges, ...], Tensor]]:
        """Hand over parameters, ranges and leaves, and forget them."""
        found, self._found = self._found, []
        return found


def take_all(tensor: Tensor, ranges: Sequence[Ranges]) -> Tensor:
    """:func:`~.channels.take` along the first axes, one after the other."""
    for dim, kept in enumerate(ranges):
        tensor = take(tensor, kept, dim)
    return tensor
