# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Active parts of parameters, kept from one pass to the next.

A part that is a view shares its memory with the parameter: whatever writes to
that (an optimizer, a loaded checkpoint, an averaged model) writes to the part,
too. So a part fits as long as the parameter is the same object at the same
place in memory with the same shape and strides, and as the width and what the
layer knows of its channels are the same. Nothing has to be told that weights
changed.
"""

from typing import Any, Dict, Optional, Tuple

import torch
from torch import Tensor, nn

_MOST = 8  # inputs and widths of a layer
# Before torch 2.3 nothing cheap says so: there nothing is kept.
_is_compiling = getattr(torch.compiler, 'is_compiling', lambda: True)
Parts = Dict[str, Optional[Tensor]]


class KeptParts:
    """Views of the parts of a layer's parameters that a pass has taken.

    They have no memory of their own. They are kept from the second pass of a
    subnet on, of at most eight. Copies of a layer begin without any.
    """

    def __init__(self) -> None:
        self._found: Dict[Any, Optional[Tuple[tuple, tuple, Parts]]] = {}

    def get(self, layer: Any, inputs: int, owner: nn.Module) -> Parts:
        """Take parts again, or for the first time.

        Args:
            layer (SlimLayer): Whose they are.
            inputs (int): Channels of its input.
            owner (nn.Module): Holds the parameters.
        """
        state = layer.slim_state
        key = inputs, state.width, state.scale
        found = self._found.get(key)
        if found is not None and found[1] == (
            # Hardly any of these ever changes.
            layer.slim_rule,
            layer.slim_inputs,
            layer.slim_outputs,
            layer.slim_unproven,
            state.max_width,
            state.rounding,
        ):
            own = owner._parameters
            for name, parameter, place, *layout in found[0]:
                if own.get(name) is not parameter or (
                    parameter is not None
                    and (
                        parameter.data_ptr() != place
                        or [parameter.shape, parameter.stride()] != layout
                    )
                ):
                    break
            else:
                return found[2]
        parts = layer.narrowed(inputs)
        if key not in self._found:
            # A loop over many subnets, batch by batch, finds none again.
            if len(self._found) >= _MOST:
                self._found.clear()
            self._found[key] = None
            return parts
        sources = _sources(owner, parts)
        if sources is not None:
            about = (
                *(layer.slim_rule, layer.slim_inputs, layer.slim_outputs),
                *(layer.slim_unproven, state.max_width, state.rounding),
            )
            parts = {
                name: part
                if isinstance(part, nn.Parameter) or part is None
                else part.detach()  # shares the memory
                for name, part in parts.items()
            }
            # Another thread finds the old one, or all of the new one.
            self._found[key] = sources, about, parts
        return parts

    def __deepcopy__(self, memo: dict) -> 'KeptParts':
        return KeptParts()

    def __reduce__(self) -> Any:
        return KeptParts, ()


def _sources(owner: nn.Module, parts: Parts) -> Optional[tuple]:
    """The parameters that parts are views of; None if one is no view."""
    sources = []
    for name, part in parts.items():
        whole: Any = owner._parameters.get(name)
        if part is None and whole is None:
            sources.append((name, None, 0, None, None))
            continue
        if (
            # Others stand in for parameters only while something is traced.
            type(whole) is not nn.Parameter
            or type(part) not in (Tensor, nn.Parameter)
            or part is None
            or part.untyped_storage().data_ptr()
            != whole.untyped_storage().data_ptr()
        ):
            return None
        layout = whole.shape, whole.stride()
        sources.append((name, whole, whole.data_ptr(), *layout))
    return tuple(sources)


def may_be_kept() -> bool:
    """Whether parts of now fit a later pass: not where a pass is recorded."""
    return not (
        torch.is_grad_enabled() or torch.jit.is_tracing() or _is_compiling()
    )
