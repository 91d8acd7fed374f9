# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Parameters of the narrow network inside, found on the meta device."""

from typing import Any, Callable, Dict, Optional

from torch import nn

from .heads import SlimHeads
from .macs import pass_on_meta
from .meta import meta_copy
from .private_affines import PrivateAffine
from .trace import watch_channels
from .vectors import SlimVectors


def count_module_params(
    module: nn.Module,
    *inputs: Any,
    forward: Optional[Callable[..., Any]] = None,
) -> int:
    """Count the parameters that ``forward`` uses at the active width.

    Of a slim layer those are the weight's rows that make its output and the
    columns that meet its input, and the same part of biases and batch-norm
    scales, those of one input size; of a layer that runs several times, its
    widest run. Everything else counts whole: other modules, and slim layers
    that ``forward`` does not reach. So at full width the count is that of
    ``module.parameters()``, without those of batch norms for other input
    sizes. Buffers (running statistics) do not count.

    Nothing is computed and ``module`` is not touched, as in
    :func:`~.macs.count_module_macs`.

    Args:
        module (nn.Module): On any device, in any mode.
        *inputs: Tensors of any device (their shapes count), or any other
            arguments.
        forward (Callable, optional): ``forward(module, *inputs)``, what to
            run. Defaults to calling the module.

    Returns:
        int: Parameters, a shared one counted once.
    """
    net = meta_copy(module)
    return params_of_pass(
        net, lambda: pass_on_meta(net, *inputs, forward=forward)
    )


def params_of_pass(net: nn.Module, run: Callable[[], Any]) -> int:
    """:func:`count_module_params` of a network made by ``meta_copy``.

    Args:
        net (nn.Module): At its active width.
        run (Callable): A pass of it, whatever else that is for.
    """
    with watch_channels(net) as seen:
        run()
    active: Dict[int, int] = {}
    for layer, channels in seen.items():
        for name, part in layer.narrowed(channels[0]).items():
            if part is not None:
                key = id(getattr(layer, name))
                active[key] = max(active.get(key, 0), part.numel())
    for heads in net.modules():
        if isinstance(heads, SlimHeads):
            for path, part in heads.narrowed().items():
                active[id(heads.get_parameter(path))] = part.numel()
    for holder in net.modules():
        if isinstance(holder, SlimVectors):
            for name, part in holder.narrowed().items():
                active[id(holder._parameters[name])] = part.numel()
    for affine in net.modules():
        if isinstance(affine, PrivateAffine):  # of one size, counted above
            active.update((id(p), 0) for p in affine.parameters())
    return sum(active.get(id(p), p.numel()) for p in net.parameters())
