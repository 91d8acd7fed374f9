# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the subnets of one network cost, each counted once."""

from typing import Any, Dict, Optional

from ..models import MutualLearningMixin
from ..models.tasks.base import Task
from ..subnet import Size, Subnet
from .macs import count_heads
from .macs_by_width import MacsByWidth


class SubnetCosts:
    """Counts the costs of subnets when they are first asked for.

    They equal those of :func:`~.macs.count_macs`, :func:`~.macs.count_heads`
    and :func:`~.macs.count_params`. Many subnets take little more time than
    one: see :class:`~.macs_by_width.MacsByWidth`.

    Args:
        model (MutualLearningMixin): Whose subnets they are.
        shape (tuple[int], optional): Height and width of what the test
            pipeline delivers, as for :func:`~.macs.count_macs`.

    Attributes:
        head_params (int, optional): Parameters of the heads that MACs leave
            out, which ``params`` includes; None if there are none.
    """

    def __init__(
        self, model: MutualLearningMixin, shape: Optional[Size]
    ) -> None:
        self._macs = MacsByWidth(model, shape)
        task = model.task
        # Another pass where that of the cost leaves out what is narrow.
        self._sliced = self._macs
        if type(task).forward_sliced is not Task.forward_sliced:
            self._sliced = MacsByWidth(model, shape, task.forward_sliced)
        self._whole: Optional[MacsByWidth] = None
        # Whether heads run without proposals is the same for all.
        heads = count_heads(model, model.space.smallest, shape)
        self.head_params = None if heads is None else heads.params
        if heads is not None and heads.macs is not None:
            self._whole = MacsByWidth(model, shape, task.forward_whole)

    def of(self, subnet: Subnet) -> Dict[str, Any]:
        """The costs of a subnet, by their names in a table's entry."""
        macs, head_macs = self._macs(subnet), None
        if self._whole is not None:
            head_macs = self._whole(subnet) - macs
        params = self._sliced.params(subnet)
        return dict(macs=macs, head_macs=head_macs, params=params)
