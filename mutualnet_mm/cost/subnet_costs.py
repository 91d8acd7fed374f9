# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the subnets of one network cost, each counted once."""

from typing import Any, Dict, Optional

from ..models import MutualLearningMixin
from ..subnet import Size, Subnet
from .macs import count_heads, count_macs, count_params


class SubnetCosts:
    """Counts the costs of subnets when they are first asked for.

    Args:
        model (MutualLearningMixin): Whose subnets they are.
        shape (tuple[int], optional): Height and width of what the test
            pipeline delivers, as for :func:`~.macs.count_macs`.
    """

    def __init__(
        self, model: MutualLearningMixin, shape: Optional[Size]
    ) -> None:
        self._model, self._shape = model, shape
        self._macs: Dict[Subnet, Dict[str, Optional[int]]] = {}
        self._params: Dict[float, int] = {}  # the width alone matters

    def of(self, subnet: Subnet) -> Dict[str, Any]:
        """The costs of a subnet, by their names in a table's entry."""
        if subnet not in self._macs:
            given = self._model, subnet, self._shape
            heads = count_heads(*given)
            self._macs[subnet] = dict(
                macs=count_macs(*given),
                head_macs=None if heads is None else heads.macs,
            )
        if subnet.width not in self._params:
            self._params[subnet.width] = count_params(self._model, subnet)
        return dict(self._macs[subnet], params=self._params[subnet.width])
