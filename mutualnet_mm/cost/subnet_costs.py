# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the subnets of one network cost, each counted once."""

from typing import Any, Dict, Optional

from ..models import MutualLearningMixin
from ..slimmable.meta import meta_copy
from ..slimmable.params import params_on_meta
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
        self._net = meta_copy(model)  # another thread may be running the model
        self._macs = MacsByWidth(model, shape)
        self._whole: Optional[MacsByWidth] = None
        self._params: Dict[Any, int] = {}  # the width alone matters
        # Whether heads run without proposals is the same for all.
        heads = count_heads(model, model.space.smallest, shape)
        self.head_params = None if heads is None else heads.params
        if heads is not None and heads.macs is not None:
            whole = model.task.forward_whole
            self._whole = MacsByWidth(model, shape, whole)

    def of(self, subnet: Subnet) -> Dict[str, Any]:
        """The costs of a subnet, by their names in a table's entry."""
        macs, head_macs = self._macs(subnet), None
        if self._whole is not None:
            head_macs = self._whole(subnet) - macs
        if subnet.width not in self._params:
            self._params[subnet.width] = self._count_params(subnet)
        params = self._params[subnet.width]
        return dict(macs=macs, head_macs=head_macs, params=params)

    def _count_params(self, subnet: Subnet) -> int:
        net = self._net
        with net.activate(subnet):
            batch = net.task.meta_input(net, subnet)
            return params_on_meta(net, batch, forward=net.task.forward_sliced)
