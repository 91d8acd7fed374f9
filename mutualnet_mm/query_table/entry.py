# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""One subnet of a query table: what it costs and how good it is."""

import sys
from dataclasses import dataclass, field
from numbers import Real
from typing import Dict, Mapping, Optional, cast

from ..errors import UsageError, is_count
from ..subnet import Subnet
from .resampling import Values

MEASURED: Dict[str, str] = dict(
    latency_ms='median',
    p90_ms='p90',
    energy_mj='energy_mj',
    images_per_second='images_per_second',
)
"""What is measured on a device, and where :class:`Latency` holds it."""

COSTS = ('macs', 'latency_ms', 'params', *list(MEASURED)[1:])
"""What a budget may limit: all but images per second from above."""


def is_positive(value: object) -> bool:
    """Whether ``value`` is a positive number that is finite as a float."""
    return (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and 0 < cast(float, value) <= sys.float_info.max
    )


@dataclass(frozen=True)
class Latency:
    """How long one batch takes on one device, and what else it costs there.

    Args:
        median (float): In milliseconds.
        p90 (float): 90th percentile, in milliseconds.
        images_per_second (float, optional): Throughput at the best of some
            batch sizes. Defaults to None: not measured.
        best_batch (int, optional): That batch size. Defaults to None.
        energy_mj (float, optional): Energy of an image in millijoules, at the
            batch size of the latency. Defaults to None: not measured.

    Raises:
        UsageError: If one of them is not a positive finite number, or if
            a throughput has no batch size.
    """

    median: float
    p90: float
    images_per_second: Optional[float] = None
    best_batch: Optional[int] = None
    energy_mj: Optional[float] = None

    def __post_init__(self) -> None:
        for name, unit in (
            ('median', ' of milliseconds'),
            ('p90', ' of milliseconds'),
            ('images_per_second', ''),
            ('energy_mj', ' of millijoules'),
        ):
            value = getattr(self, name)
            if value is None and name not in ('median', 'p90'):
                continue
            if not is_positive(value):
                raise UsageError(
                    f'latency {name}={value!r}: use a positive number{unit}'
                )
            # numpy's numbers must not get into files of plain values.
            object.__setattr__(self, name, float(value))
        has_batch = is_count(self.best_batch)
        if has_batch != (self.images_per_second is not None) or not (
            has_batch or self.best_batch is None
        ):
            raise UsageError(
                f'latency best_batch={self.best_batch!r}: use a whole number '
                'from 1 with images_per_second, None without'
            )


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
        latency_ms (Mapping): Measured :class:`Latency`, with what else was
            measured, by the name of the device, such as ``'cpu-t2-b1'``.
            Defaults to none.
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
    resampled: Mapping[str, Values] = field(default_factory=dict, repr=False)

    @property
    def mean_macs(self) -> int:
        """int: ``macs``, which every image costs; see :class:`Cascade`."""
        return self.macs

    def cost(self, name: str, device: Optional[str] = None) -> Optional[float]:
        """Return a cost that a budget may limit.

        Args:
            name (str): One of ``COSTS``.
            device (str, optional): Device of what was measured. Defaults to
                None.

        Returns:
            float or None: Of ``latency_ms`` the median; None if it was not
            measured on that device.
        """
        if name not in MEASURED:
            return getattr(self, name)
        measured = self.latency_ms.get(device) if device else None
        return None if measured is None else getattr(measured, MEASURED[name])
