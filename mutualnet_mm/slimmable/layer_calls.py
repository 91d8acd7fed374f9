# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Record what each slim layer is given and returns."""

from typing import Any, List, NamedTuple, Tuple

import torch
from torch import Tensor, nn

from .outputs import tensors
from .slim_layer import SlimLayer


class Call(NamedTuple):
    """One run of a layer.

    Args:
        name (str): Of the layer.
        kind (str): Of the layer: its class.
        inputs (int): Channels of the input.
        axis (int): Axis of the channels.
        output (Tensor): A copy of what it returned.
    """

    name: str
    kind: str
    inputs: int
    axis: int
    output: Tensor


Calls = List[Call]


def record_calls(net: nn.Module, x: Tensor) -> Tuple[Calls, List[Tensor]]:
    """Run a network.

    Returns:
        tuple: The runs of its slim layers in order, and the tensors that it
        returns.
    """
    calls: Calls = []
    handles = []
    for name, layer in net.named_modules():
        if isinstance(layer, SlimLayer):

            def hook(
                layer: Any,
                args: tuple,
                kwargs: Any,
                out: Tensor,
                name: str = name,
            ) -> None:
                # Cloned: an in-place activation may come next.
                kind = type(layer).__name__
                axis = layer.axis(args[1:], kwargs)
                inputs = args[0].shape[axis]
                calls.append(Call(name, kind, inputs, axis, out.clone()))

            handle = layer.register_forward_hook(hook, with_kwargs=True)
            handles.append(handle)
    try:
        with torch.no_grad():
            outputs = list(tensors(net(x)))
    finally:
        for handle in handles:
            handle.remove()
    return calls, outputs
