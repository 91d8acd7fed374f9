# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Parameters of the narrow network inside, found on the meta device."""

from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from torch import nn

from .macs import count_on_meta
from .meta import meta_copy
from .trace import watch_channels


def count_module_params(
    module: nn.Module,
    *inputs: Any,
    forward: Optional[Callable[..., Any]] = None,
) -> int:
    """Count the parameters that ``forward`` uses at the active width.

    Of a slim layer those are the weight's rows that make its output and the
    columns that meet its input, and the same part of biases and batch-norm
    scales; of a layer that runs several times, its widest run. Everything
    else counts whole: other modules, and slim layers that ``forward`` does
    not reach. So at full width the count is that of ``module.parameters()``.
    Buffers (running statistics) do not count.

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
    with watch_channels(net) as seen:
        count_on_meta(net, *inputs, forward=forward)  # for its pass alone
    active: Dict[int, int] = {}
    for layer, (width_in, width_out) in seen.items():
        for parameter, number in _active(layer, width_in, width_out):
            key = id(parameter)
            active[key] = max(active.get(key, 0), number)
    return sum(active.get(id(p), p.numel()) for p in net.parameters())


def _active(
    layer: nn.Module, inputs: int, outputs: int
) -> Iterator[Tuple[nn.Parameter, int]]:
    """Parameters of a slim layer, and how many numbers of each it uses."""
    for parameter in layer.parameters(recurse=False):
        per_output = 1
        if parameter.dim() > 1:  # a weight: (out, in, ...), not a bias
            per_output = parameter[0].numel()
            if getattr(layer, 'groups', 1) == 1:  # else the group width stays
                per_output = per_output // parameter.shape[1] * inputs
        yield parameter, outputs * per_output
