# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""One subnet of a query table: what it costs and how good it is."""

import sys
from dataclasses import dataclass, field
from numbers import Real
from typing import Mapping, Optional, cast

from ..errors import UsageError
from ..subnet import Subnet
from .resampling import Values

COSTS = ('macs', 'latency_ms', 'params')
"""What a budget may limit."""


def is_milliseconds(value: object) -> bool:
    """Whether ``value`` is a positive number that is finite as a float."""
    return (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and 0 < cast(float, value) <= sys.float_info.max
    )


@dataclass(frozen=True)
class Latency:
    """How long one batch takes on one device.

    Args:
        median (float): In milliseconds.
        p90 (float): 90th percentile, in milliseconds.

    Raises:
        UsageError: If one of them is not a positive finite number.
    """

    median: float
    p90: float

    def __post_init__(self) -> None:
        for name in ('median', 'p90'):
            value = getattr(self, name)
            if not is_milliseconds(value):
                raise UsageError(
                    f'latency {name}={value!r}: use a positive number of '
                    'milliseconds'
                )
            # numpy's numbers must not get into files of plain values.
            object.__setattr__(self, name, float(value))


@dataclass(frozen=True)
class TableEntry:
    """One subnet of a table.

    Args:
        subnet (Subnet): Which one.
        macs (int): Multiply-accumulates for an image, or for one view of a
            video.
        params (int): Parameters that it uses.
        metrics (Mapping): Values of the evaluator by their stock names; None
            where a value is not a number (NaN).
        latency_ms (Mapping): Measured :class:`Latency` by the name of the
            device, such as ``'cpu-t2-b1'``. Defaults to none.
        head_macs (int, optional): Multiply-accumulates of a detector's heads,
            which ``macs`` leaves out, as in the paper. They keep their width.
            Defaults to None: counted in, or known for no image before it is
            seen (proposals).
        resampled (Mapping): Values of metrics, by name, on the same test sets
            that are drawn from the images of the tested one, see
            :mod:`~.resampling`. Defaults to none.
    """

    subnet: Subnet
    macs: int
    params: int
    metrics: Mapping[str, Optional[float]] = field(default_factory=dict)
    latency_ms: Mapping[str, Latency] = field(default_factory=dict)
    head_macs: Optional[int] = None
    resampled: Mapping[str, Values] = field(default_factory=dict)

    @property
    def mean_macs(self) -> int:
        """int: ``macs``, which every image costs; see :class:`Cascade`."""
        return self.macs

    def cost(self, name: str, device: Optional[str] = None) -> Optional[float]:
        """Return a cost that a budget may limit.

        Args:
            name (str): One of ``COSTS``.
            device (str, optional): Device of the latency. Defaults to None.

        Returns:
            float or None: The median of a latency, in milliseconds; None if it
            was not measured on that device.
        """
        if name != 'latency_ms':
            return getattr(self, name)
        measured = self.latency_ms.get(device) if device else None
        return None if measured is None else measured.median
