# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Keep a deadline on a loaded device by switching subnets."""

import math
from collections import deque
from statistics import median
from typing import Deque, Dict, List, Optional, Sequence, Tuple, cast

from ..errors import UsageError
from ..query_table import QueryTable, is_positive
from ..subnet import Subnet

# A step up was right if it lasts this many times as long as the wait for it.
_LASTS = 10


def pareto_levels(
    table: QueryTable, device: Optional[str] = None
) -> Tuple[List[Subnet], List[float]]:
    """List the subnets worth switching between, and what each costs.

    Args:
        table (QueryTable): Table whose Pareto set is listed, by its
            latencies, or by MACs if none were measured. Among subnets of
            equal cost, one is taken.
        device (str, optional): Device whose latencies count; may be left out
            if only one was measured. Defaults to None.

    Returns:
        tuple: Subnets, cheapest first, and their costs: medians in
        milliseconds, or MACs.

    Raises:
        UsageError: If there is no such device, or if there are several and
            none is named.
    """
    cost = 'macs'
    if table.devices or device is not None:
        cost, device = 'latency_ms', table.find_device(device)
    rungs: Dict[float, Subnet] = {}
    for entry in table.pareto_by(cost, device):
        # Those without a cost are not in a Pareto set.
        value = cast(float, entry.cost(cost, device))
        rungs.setdefault(value, entry.subnet)
    return list(rungs.values()), list(rungs)


class LatencyController:
    """Choose the subnet of the next frame by how long the last ones took.

    It steps down as soon as most frames of a window are late, to the highest
    rung that is expected to leave a margin. It steps up by one rung, after a
    full window, if that rung is expected to leave the margin. The expected
    time of a rung is that of the current one times the ratio of their costs:
    load that slows all subnets alike needs no model, and costs may have any
    unit.

    A step up that is soon taken back was wrong: the costs mislead, or the
    load comes and goes. Then the wait before that step doubles; it is reset
    once the step lasts, or once the device is clearly faster than when the
    step was last tried. At the lowest rung, nothing is done about late frames.

    The median is kept below the deadline. If frames vary by more than the
    margin, some are always late: give a target below the deadline.

    Args:
        subnets (Sequence[Subnet]): Cheapest first, see :func:`pareto_levels`.
        costs (Sequence[float]): Cost of each subnet, rising.
        target_ms (float): Deadline of a frame in milliseconds.
        start (Subnet, optional): Where to begin. Defaults to the highest
            rung, also if the given one is not among ``subnets``.
        window (int): Frames that are judged together. Defaults to 5.
        margin (float): Share of the deadline that a step is expected to leave
            unused. Defaults to 0.1.

    Attributes:
        subnets (list[Subnet]): As given.
        costs (list[float]): As given.
        target_ms (float): As given.

    Raises:
        UsageError: If there is no level, if the costs do not rise, or if a
            setting is out of range.
    """

    def __init__(
        self,
        subnets: Sequence[Subnet],
        costs: Sequence[float],
        target_ms: float,
        start: Optional[Subnet] = None,
        window: int = 5,
        margin: float = 0.1,
    ) -> None:
        if not is_positive(target_ms):
            raise UsageError(
                f'target_ms={target_ms!r}: use a positive number of '
                'milliseconds'
            )
        if not isinstance(window, int) or window < 3:
            raise UsageError(
                f'window={window!r}: use at least 3 frames; of fewer, a '
                'single late one would be half'
            )
        if not 0 <= margin < 1:
            raise UsageError(
                f'margin={margin!r}: use a share from 0 to less than 1'
            )
        self.subnets = list(subnets)
        self.costs = list(costs)
        self.target_ms = target_ms
        rise = zip((0.0, *self.costs), (*self.costs, math.inf))
        if (
            len(self.costs) != len(self.subnets)
            or not self.costs
            or not all(a < b for a, b in rise)
        ):
            raise UsageError(
                f'costs {self.costs} of {len(self.subnets)} subnets: give '
                'one for each, positive and rising'
            )
        self._window = window
        self._kept = 1 - margin
        self._rung = len(self.costs) - 1
        if start in self.subnets:
            self._rung = self.subnets.index(start)
        self._recent: Deque[float] = deque(maxlen=window)
        self._frames = 0  # at this rung
        self._climbed = False  # whether it was reached from below
        # For the step up to each rung: the windows to wait for it, and what
        # the rung below took when it was last tried.
        self._waits = [1] * len(self.costs)
        self._tried_at = [math.inf] * len(self.costs)

    @property
    def current(self) -> Subnet:
        """Subnet: What to use for the next frame."""
        return self.subnets[self._rung]

    def observe(self, ms: float) -> Subnet:
        """Record how long a frame took with the current subnet.

        Args:
            ms (float): In milliseconds.

        Returns:
            Subnet: What to use from now on.
        """
        self._recent.append(ms)
        self._frames += 1
        # Once most frames of a window are late, its median will be late too,
        # so there is no need to wait for the others. A median cannot tell
        # earlier, and a lone spike is never most of a window.
        if sum(ms > self.target_ms for ms in self._recent) > self._window // 2:
            self._step_down()
        elif len(self._recent) == self._window:
            self._step_up()
        return self.current

    def _fits(self, rung: int) -> bool:
        ratio = self.costs[rung] / self.costs[self._rung]
        expected = median(self._recent) * ratio
        return expected <= self._kept * self.target_ms

    def _step_down(self) -> None:
        if self._rung == 0:
            return
        rung = max(filter(self._fits, range(self._rung)), default=0)
        if self._climbed:
            wait = self._waits[self._rung]
            lasted = self._frames > _LASTS * wait * self._window
            self._waits[self._rung] = 1 if lasted else 2 * wait
            # Load puts times far above the deadline. If they are only a little
            # above, the costs misled, and the rung below was just seen to fit.
            near = self._kept * median(self._recent) <= self.target_ms
            if near and not lasted:
                rung = self._rung - 1
        self._move(rung)

    def _step_up(self) -> None:
        rung = self._rung + 1
        if rung == len(self.costs) or not self._fits(rung):
            return
        # The whole window must be faster: of many medians, one is low by
        # chance.
        if max(self._recent) < self._kept * self._tried_at[rung]:
            self._waits[rung] = 1
        if self._frames >= self._waits[rung] * self._window:
            self._tried_at[rung] = median(self._recent)
            self._move(rung)

    def _move(self, rung: int) -> None:
        self._climbed = rung > self._rung
        self._rung = rung
        self._recent.clear()
        self._frames = 0
