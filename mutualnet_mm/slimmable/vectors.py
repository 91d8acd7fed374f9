# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Parameters along the channels that a block holds beside its layers.

Layer scale, such as ``gamma`` of a ConvNeXt block: one number for each
channel of the map that the stock ``forward`` multiplies it with. Which
channels these are is found by tracing, as for layers (:mod:`.joints`).
"""

from typing import Any, ClassVar, Dict, Optional, Sequence, Tuple

from torch import Tensor, nn

from .channels import Layout, active_ranges, take
from .state import SlimState


class SlimVectors(nn.Module):
    """Mixin of modules whose own vectors follow the width.

    The stock ``forward`` reads a vector by its name and gets the active
    channels of it; parameters, names and sizes stay the stock ones.

    Attributes:
        vectors (tuple[str]): Names of the vectors.
        slim_vectors (dict): By name which layers the vector's channels are
            made by, see :class:`~.channels.Piece`; those without an entry
            stay whole.
    """

    slim_state: SlimState
    vectors: ClassVar[Tuple[str, ...]] = ()
    slim_vectors: Dict[str, Layout]

    @staticmethod
    def members(names: Sequence[str]) -> Dict[str, Any]:
        """Members of a class whose instances hold vectors of these names."""
        return dict(vectors=tuple(names), **{n: _narrow(n) for n in names})

    def narrowed(self) -> Dict[str, Tensor]:
        """Active channels of the vectors, by name: views or copies."""
        return {
            name: getattr(self, name)
            for name in self.vectors
            if self._parameters.get(name) is not None
        }


def _narrow(name: str) -> property:
    """Show a vector at the active width."""

    def vector(module: SlimVectors) -> Optional[Tensor]:
        whole = module._parameters[name]
        layout, state = module.slim_vectors.get(name), module.slim_state
        if whole is None or layout is None or state.width >= state.max_width:
            return whole
        ranges = active_ranges(
            layout, state.width, state.max_width, state.rounding
        )
        return take(whole, ranges, vector_axis(whole) or 0)

    return property(vector)


def vector_axis(parameter: Tensor) -> Optional[int]:
    """Axis along which a parameter is a vector; None if it is none."""
    long = [dim for dim, size in enumerate(parameter.shape) if size > 1]
    return long[0] if len(long) == 1 else None
