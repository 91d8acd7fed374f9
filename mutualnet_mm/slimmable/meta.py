# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Running a network on the meta device: shapes alone, nothing computed."""

import copy
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .statistics import slim_batch_norms


def meta_copy(module: nn.Module) -> nn.Module:
    """Copy a module tree with meta tensors, in evaluation mode.

    What is done with the copy does not touch ``module``, which another thread
    may be running. The copy takes no memory for tensors, and what shares one
    in ``module`` shares one in the copy.
    """
    memo: Dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device='meta'), False)
        for p in module.parameters()
    }
    tensors = [*module.buffers()]
    for _, layer in slim_batch_norms(module):
        tensors.extend(layer.subnet_stats or ())
    memo.update((id(t), torch.empty_like(t, device='meta')) for t in tensors)
    net = copy.deepcopy(module, memo)
    net.eval()  # not chained: stock ``train`` may return nothing
    return net


def run_on_meta(
    module: nn.Module,
    *inputs: Any,
    forward: Optional[Callable[..., Any]] = None,
) -> Any:
    """Run ``forward`` in evaluation mode with meta tensors for parameters.

    ``module`` is not copied. Its tensors are swapped while it runs and are
    back afterwards: no other thread may run it meanwhile.

    Args:
        module (nn.Module): On any device, in any mode.
        *inputs: Tensors of any device (their shapes count), or any other
            arguments.
        forward (Callable, optional): ``forward(module, *inputs)``, what to
            run. Defaults to calling the module.

    Returns:
        What ``forward`` returns, tensors being on the meta device.
    """
    holder = _Holder(module, forward)
    # One name for each module, also if it has several: `functional_call`
    # would swap its tensors twice and then restore the stand-ins.
    stand_ins = {
        f'{place}.{name}': torch.empty_like(tensor, device='meta')
        for place, layer in holder.named_modules()
        for name, tensor in _own_tensors(layer)
    }
    inputs = tuple(
        torch.empty_like(x, device='meta') if isinstance(x, Tensor) else x
        for x in inputs
    )
    modes = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            return functional_call(
                holder, stand_ins, inputs, tie_weights=False
            )
    finally:
        for layer, mode in modes:
            layer.training = mode


def _own_tensors(layer: nn.Module) -> List[Tuple[str, Tensor]]:
    """Parameters and buffers of a layer, without those of its children."""
    return [
        *layer.named_parameters(recurse=False),
        *layer.named_buffers(recurse=False),
    ]


class _Holder(nn.Module):
    """Runs any function of a module under ``functional_call``."""

    def __init__(
        self, module: nn.Module, function: Optional[Callable[..., Any]]
    ) -> None:
        super().__init__()
        self.module = module
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        if self.function is None:
            return self.module(*inputs)
        return self.function(self.module, *inputs)
