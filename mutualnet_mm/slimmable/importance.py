# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""How important the channels of a network are."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .batch_norms import SlimBatchNorm
from .channel_trace import ChannelTrace
from .coupled import Coupled, Couplings

MEASURES = ('bn', 'l1')
"""What says how important a channel is.

``'bn'``: the magnitude of its weight in the batch norms that take it; where
there is none, as ``'l1'``. ``'l1'``: the sum of the magnitudes of all weights
that make it. Of several norms, or layers that make it, each is divided by its
mean, and they are added.
"""


def check_measure(by: Any) -> str:
    """Return ``by``, or raise ConfigError if no measure is called so."""
    if by not in MEASURES:
        raise ConfigError(
            f'sort={by!r} of channels: use {" or ".join(map(repr, MEASURES))}'
        )
    return by


class Ranking:
    """Orders channels by how important they are.

    Args:
        net (nn.Module): That was traced; its parameters count.
        trace (ChannelTrace): Of one pass at the widest setting.
        couplings (Couplings): Of it.
        by (str): A key of :data:`MEASURES`.
    """

    def __init__(
        self,
        net: nn.Module,
        trace: ChannelTrace,
        couplings: Couplings,
        by: str,
    ) -> None:
        self._by = by
        self._rows: Dict[str, List[Tuple[List[int], Tensor]]] = {}
        self._rows = {measure: [] for measure in MEASURES}
        layers: Dict[str, Any] = dict(net.named_modules())
        for name, runs in trace.inputs.items():
            layer = layers[name]
            if isinstance(layer, SlimBatchNorm):
                measure, values = 'bn', layer.weight
                channels = list(runs[0] or ())
            elif not layer.follows:
                measure, values = 'l1', layer.magnitudes
                channels = list(trace.made[name])
            else:
                continue
            if values is not None:
                roots = couplings.of_channels(channels)
                row = roots, values.detach().abs().double()
                self._rows[measure].append(row)

    def order(self, group: Coupled) -> Tuple[List[int], str]:
        """Order a group by falling importance; equals stay in order.

        Returns:
            tuple: Its roots, in the new order, and the measure that was used;
            the old order and an empty text where none says anything.
        """
        for measure in dict.fromkeys((self._by, 'l1')):
            importance = _summed(group.roots, self._rows[measure])
            if importance is not None:
                units = importance.view(-1, group.unit).sum(1)
                new = units.argsort(descending=True, stable=True)
                ranks = torch.arange(len(group.roots)).view(-1, group.unit)
                order = ranks[new].flatten().tolist()
                return [group.roots[rank] for rank in order], measure
        return group.roots, ''


def _summed(
    roots: List[int], rows: Sequence[Tuple[List[int], Tensor]]
) -> Optional[Tensor]:
    """Sum of what rows say of channels; None if they say nothing."""
    ranks = {root: rank for rank, root in enumerate(roots)}
    total, known = torch.zeros(len(roots), dtype=torch.double), False
    for row, values in rows:
        places = [place for place, root in enumerate(row) if root in ranks]
        if not places or not values[places].any():
            continue
        known = True
        index = torch.tensor([ranks[row[place]] for place in places])
        total.index_add_(0, index, values[places] / values[places].mean())
    return total if known else None
