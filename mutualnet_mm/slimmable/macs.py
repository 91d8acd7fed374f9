# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Multiply-accumulates, counted on the meta device."""

from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Iterator, List, Optional

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from .meta import meta_copy


def count_module_macs(
    module: nn.Module,
    *inputs: Any,
    forward: Optional[Callable[..., Any]] = None,
) -> int:
    """Count the multiply-accumulates of ``forward`` at the active width.

    Convolutions and linear layers (matrix products) count, whatever module or
    function runs them, and ``nn.AdaptiveAvgPool`` modules that pool globally;
    biases, batch norms and activations do not, as in the published code.
    Nothing is computed, and ``module`` is not touched: a copy with meta
    tensors is run, so another thread may use ``module`` meanwhile.

    Args:
        module (nn.Module): On any device, in any mode.
        *inputs: Tensors of any device (their shapes count), or any other
            arguments.
        forward (Callable, optional): ``forward(module, *inputs)``, what to
            run. Defaults to calling the module.

    Returns:
        int: Multiply-accumulates of the whole batch given.
    """
    return count_on_meta(meta_copy(module), *inputs, forward=forward)


def count_on_meta(
    net: nn.Module,
    *inputs: Any,
    forward: Optional[Callable[..., Any]] = None,
) -> int:
    """:func:`count_module_macs` of a network made by ``meta_copy``."""
    pooled: List[int] = []
    with ExitStack() as stack:
        for layer in net.modules():
            if isinstance(layer, nn.modules.pooling._AdaptiveAvgPoolNd):
                handle = layer.register_forward_hook(
                    lambda _, args, out: pooled.append(
                        _pooling_macs(args[0], out)
                    )
                )
                stack.callback(handle.remove)
        counter = stack.enter_context(FlopCounterMode(display=False))
        pass_on_meta(net, *inputs, forward=forward)
    return counter.get_total_flops() // 2 + sum(pooled)


@torch.no_grad()
def pass_on_meta(
    net: nn.Module,
    *inputs: Any,
    forward: Optional[Callable[..., Any]] = None,
) -> Any:
    """Run a network made by ``meta_copy`` for the shapes of its layers.

    Layers that do not count are left out. The other arguments are those of
    :func:`count_module_macs`.
    """
    meta = [
        torch.empty_like(x, device='meta') if isinstance(x, Tensor) else x
        for x in inputs
    ]
    with skip_free_layers(net):
        return net(*meta) if forward is None else forward(net, *meta)


@contextmanager
def skip_free_layers(module: nn.Module) -> Iterator[None]:
    """Let layers that do not count hand on their input.

    Their stand-ins on the meta device take up to nine tenths of the time of
    a count.
    """
    patched = {
        layer: layer.__dict__.get('forward')
        for layer in module.modules()
        if isinstance(layer, (_BatchNorm, nn.ReLU, nn.ReLU6))
    }
    for layer in patched:
        layer.forward = _identity
    try:
        yield
    finally:
        for layer, forward in patched.items():
            del layer.forward
            if forward is not None:
                layer.forward = forward


def _identity(x: Any) -> Any:
    return x


def _pooling_macs(x: Tensor, out: Tensor) -> int:
    is_global = all(size == 1 for size in out.shape[2:])
    return x.numel() if is_global else 0
