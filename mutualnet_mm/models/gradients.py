# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Gradients of many losses with the memory of one.

The four losses of a step (Eq. 5) share one backward in theory. Done so, the
activations of all four networks live at the same time. Here each loss is
differentiated as soon as it is known, and the summed gradients wait inside an
autograd node that hands them over when the trainer calls ``backward``: the
stock ``train_step``, gradient accumulation, clipping and DDP see one ordinary
loss.
"""

import math
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Set,
    Tuple,
)

import torch
import torch.utils.checkpoint
from torch import Tensor

from ..slimmable.leaves import Leaves, take_all


class GradientSum:
    """Sums the gradients of several losses and hands them over as one.

    Under half-precision autocast an unscaled loss would underflow, and a
    gradient scaler only acts on the final backward. So losses are scaled
    here by what that backward last brought in, ``GradScaler``'s own scale:
    it grows and shrinks for both.

    Attributes:
        leaves (Leaves, optional): Parts of parameters that the next loss is
            also differentiated with regard to. None if it is to be
            differentiated through the parts.
    """

    def __init__(self) -> None:
        self._scale = 2.0**16  # GradScaler's initial scale
        self._parameters: List[Tensor] = []
        self._gradients: List[Any] = []  # tensors, or None
        self._places: Dict[int, int] = {}  # of parameters, by their ids
        self._owned: Set[int] = set()  # gradients that nothing else shares
        self._is_half = False
        self.leaves: Optional[Leaves] = Leaves()

    def start(self, parameters: Sequence[Tensor]) -> None:
        """Forget the last step; what needs no gradient is left out."""
        self.drop()
        self._parameters = [p for p in parameters if p.requires_grad]
        self._places = {id(p): i for i, p in enumerate(self._parameters)}
        self._is_half = _is_half()
        self.clear()

    def clear(self) -> None:
        """Forget the gradients so far."""
        self._gradients = [None] * len(self._parameters)
        self._owned.clear()

    def drop(self) -> None:
        """Free the gradients of a step that failed or was handed over."""
        self._parameters = []
        self.leaves = Leaves()
        self.clear()

    def add(self, loss: Tensor) -> None:
        """Differentiate ``loss`` now and free its graph."""
        # Outside of autocast, like the trainer's own backward, which is also
        # where hooks of parameters are due, once for all losses.
        with torch.autocast(loss.device.type, enabled=False), _no_hooks(
            self._parameters
        ):
            parts = self.leaves.take() if self.leaves else []
            gradients = torch.autograd.grad(
                loss * self._scale if self._is_half else loss,
                [*self._parameters, *(leaf for *_, leaf in parts)],
                allow_unused=True,
            )
        for i, new in enumerate(gradients[: len(self._parameters)]):
            if new is not None:
                old = self._gradients[i]
                # Not in place: two parameters may share one gradient tensor.
                self._gradients[i] = new if old is None else old + new
        self._add_parts(parts, gradients[len(self._parameters) :])

    def _add_parts(self, parts: List[Any], gradients: Sequence[Any]) -> None:
        for (parameter, ranges, _), new in zip(parts, gradients):
            if new is not None:
                take_all(self._own(parameter), ranges).add_(new)

    def _own(self, parameter: Tensor) -> Tensor:
        """The gradient of a parameter, as a tensor that nothing shares."""
        i = self._places[id(parameter)]
        if i not in self._owned:
            old, own = self._gradients[i], torch.zeros_like(parameter)
            self._gradients[i] = own if old is None else own.copy_(old)
            self._owned.add(i)
        return self._gradients[i]

    def as_loss(self, value: Tensor) -> Tensor:
        """Return ``value`` as a scalar whose backward gives the sum.

        A parameter that no loss reached gets no gradient, as in a stock
        step: zeros would let the optimizer decay it and hide the disconnect.
        """
        reached = [
            (p, g)
            for p, g in zip(self._parameters, self._gradients)
            if g is not None
        ]
        self.drop()
        parameters = [p for p, _ in reached]
        return _AsLoss.apply(
            value.detach(),
            [g for _, g in reached],
            self._scale if self._is_half else 1.0,
            self._learn_scale if self._is_half else None,
            *parameters,
        )

    def _learn_scale(self, scale: float) -> None:
        # A loss that is weighted by 0 says nothing about the scaler's.
        if scale > 0 and math.isfinite(scale):
            self._scale = scale


@contextmanager
def _no_hooks(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Take away what ``Tensor.register_hook`` has put on parameters."""
    hooks = [p._backward_hooks for p in parameters if p._backward_hooks]
    before = [dict(registered) for registered in hooks]
    for registered in hooks:
        registered.clear()
    try:
        yield
    finally:
        for registered, own in zip(hooks, before):
            registered.update(own)


class _AsLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        gradients: List[Tensor],
        scale: float,
        learn_scale: Optional[Callable[[float], None]],
        *parameters: Tensor,
    ) -> Tensor:
        del parameters
        ctx.gradients, ctx.scale = gradients, scale
        ctx.learn_scale = learn_scale
        return value.clone()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError(
                'the gradients of a mutual learning step were '
                'handed over already: call backward once'
            )
        if ctx.learn_scale is not None:
            ctx.learn_scale(float(incoming))
        factor = incoming / ctx.scale
        return (None, None, None, None, *(g * factor for g in gradients))


def _is_half() -> bool:
    if not hasattr(torch, 'get_autocast_dtype'):  # before PyTorch 2.4
        if torch.is_autocast_enabled():
            return torch.get_autocast_gpu_dtype() == torch.float16
        return (
            torch.is_autocast_cpu_enabled()
            and torch.get_autocast_cpu_dtype() == torch.float16
        )
    return any(
        torch.is_autocast_enabled(device)
        and torch.get_autocast_dtype(device) == torch.float16
        for device in ('cuda', 'cpu')
    )


_lock = threading.Lock()
_inside = 0  # blocks that are entered, in any thread
_is_own: ContextVar[bool] = ContextVar('non_reentrant', default=False)
_stock_checkpoint = torch.utils.checkpoint.checkpoint
_replaced: List[Tuple[Dict[str, Any], str]] = []  # while any is entered


@contextmanager
def non_reentrant_checkpointing() -> Iterator[None]:
    """Make activation checkpointing (``with_cp=True``) non-reentrant.

    Stock backbones call ``torch.utils.checkpoint.checkpoint`` and leave it
    the reentrant form, which ``torch.autograd.grad`` cannot pass. The other
    form recomputes inside of ``add``, while the subnet is still active. Code
    that imported the function itself is reached, too, such as the runner's
    ``activation_checkpointing``; other threads are not.
    """
    global _inside, _stock_checkpoint, _replaced
    with _lock:
        if _inside == 0:
            _stock_checkpoint = torch.utils.checkpoint.checkpoint
            found = _holders(_stock_checkpoint, len(sys.modules))
            # A notebook may have imported it since.
            own = _names_of(_stock_checkpoint, vars(sys.modules['__main__']))
            _replaced = [
                (names, name)
                for names, name in (*found, *own)
                if names.get(name) is _stock_checkpoint
            ]
            for names, name in _replaced:
                names[name] = _checkpoint
        _inside += 1
    token = _is_own.set(True)
    try:
        yield
    finally:
        _is_own.reset(token)
        with _lock:
            _inside -= 1
            if _inside == 0:
                for names, name in _replaced:
                    names[name] = _stock_checkpoint


@lru_cache(maxsize=1)
def _holders(function: Any, number: int) -> List[Tuple[Dict[str, Any], str]]:
    """Names of all modules that stand for a function.

    Args:
        function: Which one.
        number (int): Of modules; with more of them it is looked for anew.
    """
    del number
    contents = [getattr(m, '__dict__', {}) for m in [*sys.modules.values()]]
    return [
        found
        for names in contents
        if names is not globals()
        for found in _names_of(function, names)
    ]


def _names_of(
    function: Any, names: Dict[str, Any]
) -> List[Tuple[Dict[str, Any], str]]:
    return [(names, n) for n, value in [*names.items()] if value is function]


def _checkpoint(*args: Any, **kwargs: Any) -> Any:
    if _is_own.get():
        kwargs['use_reentrant'] = False
    return _stock_checkpoint(*args, **kwargs)
