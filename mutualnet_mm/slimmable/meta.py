# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Networks on the meta device: shapes alone, no memory, nothing computed."""

import copy
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.module import (
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from .statistics import slim_batch_norms

_creates_on_meta: ContextVar[bool] = ContextVar('weights', default=False)


@contextmanager
def weights_on_meta() -> Iterator[None]:
    """Build layers without memory for their weights in a ``with`` block.

    A network that loads a checkpoint anyway need not initialise its weights
    before. Only the weights of layers that have ``reset_parameters``, which
    can initialise them later, go to the meta device: convolutions, norm,
    linear and embedding layers. Other parameters, buffers and tensors keep
    the values that the network's constructor gives them. Networks that other
    threads build meanwhile are not affected.

    Afterwards load weights with ``assign=True``, or call :func:`materialize`.
    """
    handle = register_module_parameter_registration_hook(_on_meta)
    token = _creates_on_meta.set(True)
    try:
        with _NotFilled():
            yield
    finally:
        _creates_on_meta.reset(token)
        handle.remove()


class _NotFilled(TorchFunctionMode):
    """Spares the initialisation of tensors that have no values.

    On the meta device each runs through PyTorch's Python code for nothing,
    and takes longer than to make the layer.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        place = getattr(func, '__module__', None)
        if func in _FILLING or place == 'torch.nn.init':
            tensor = args[0] if args else kwargs.get('tensor')
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


_FILLING = {Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_}


def creates_on_meta() -> bool:
    """Whether :func:`weights_on_meta` is active: weights are loaded then."""
    return _creates_on_meta.get()


def _on_meta(
    layer: nn.Module, name: str, parameter: nn.Parameter
) -> Optional[nn.Parameter]:
    del name
    # What is on the meta device already may be tied to another layer's; a
    # subclass (of lazy layers) does more than to hold values.
    if (
        not _creates_on_meta.get()
        or parameter.is_meta
        or type(parameter) is not nn.Parameter
        or not hasattr(layer, 'reset_parameters')
    ):
        return None
    return nn.Parameter(parameter.to('meta'), parameter.requires_grad)


def materialize(module: nn.Module) -> None:
    """Give weights on the meta device memory and PyTorch's initial values.

    Args:
        module (nn.Module): Built in :func:`weights_on_meta`; changed in
            place. Weights that are tied stay tied.
    """
    real: Dict[nn.Parameter, nn.Parameter] = {}
    for layer in module.modules():
        own = [*layer.named_parameters(recurse=False)]
        for name, parameter in own:
            if parameter.is_meta and parameter not in real:
                values = torch.empty(parameter.shape, dtype=parameter.dtype)
                real[parameter] = nn.Parameter(values, parameter.requires_grad)
            setattr(layer, name, real.get(parameter, parameter))
        if any(parameter in real for _, parameter in own):
            layer.reset_parameters()


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
    with _same_attributes(module), evaluating(module), _whatever_statistics(
        module
    ), torch.no_grad():
        return functional_call(holder, stand_ins, inputs, tie_weights=False)


@contextmanager
def _same_attributes(module: nn.Module) -> Iterator[None]:
    """Put back what a forward sets, as its tensors are put back.

    Such as the size that buffers were made for last (rotary positions): the
    next forward of that size would take the buffers of another one.
    """
    before = [(vars(layer), dict(vars(layer))) for layer in module.modules()]
    try:
        yield
    finally:
        for attributes, old in before:
            attributes.clear()
            attributes.update(old)


@contextmanager
def _whatever_statistics(module: nn.Module) -> Iterator[None]:
    """Let narrow widths run without statistics of theirs: none is read."""
    slim = [m for m in module.modules() if getattr(m, 'slim_state', None)]
    states = {id(m.slim_state): m.slim_state for m in slim}.values()
    before = [(state, state.running_stats) for state in states]
    try:
        for state, _ in before:
            state.running_stats = True
        yield
    finally:
        for state, old in before:
            state.running_stats = old


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for a ``with`` block.

    Each layer is in the mode of before afterwards: parts of a network in
    training may be frozen.
    """
    modes = [(layer, layer.training) for layer in module.modules()]
    try:
        module.eval()  # not chained: stock ``train`` may return nothing
        yield
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
