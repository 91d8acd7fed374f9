# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a forward pass tells about the layers of a slimmable network."""

from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import Any, Dict, Iterator, List, Tuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from .batch_norms import SlimBatchNorm
from .layers import (
    SlimConv2d,
    SlimConv3d,
)
from .slim_layer import SlimLayer

Channels = Tuple[int, int]
"""Input and output channels of a layer."""


@contextmanager
def watch_channels(module: nn.Module) -> Iterator[Dict[nn.Module, Channels]]:
    """Collect the channels that slim layers run at in a ``with`` block.

    Yields:
        dict: Channels by layer, of the widest run if there are several;
        without the layers that no forward pass inside reaches.
    """
    seen: Dict[nn.Module, Channels] = {}

    def record(layer: Any, args: Any, kwargs: Any, out: Tensor) -> None:
        dim = layer.axis(args[1:], kwargs)
        before = seen.get(layer, (0, 0))
        seen[layer] = (
            max(before[0], args[0].shape[dim]),
            max(before[1], out.shape[dim]),
        )

    with ExitStack() as stack:
        for layer in module.modules():
            if isinstance(layer, SlimLayer):
                handle = layer.register_forward_hook(record, with_kwargs=True)
                stack.callback(handle.remove)
        yield seen


class FoldFinder(TorchDispatchMode):
    """Finds the convolutions that a batch norm alone takes the output of.

    Such a batch norm can be folded into its convolution. Used as a ``with``
    block around one forward pass of ``module``, whose outputs are then shown
    to :meth:`pairs`; layers that run several times are left out.

    Args:
        module (nn.Module): With slim layers.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module
        self._stack = ExitStack()
        self._runs: Counter = Counter()
        # Outputs are kept: the identity of a freed one is given anew.
        self._made: Dict[int, Tuple[Tensor, nn.Module]] = {}
        self._uses: Counter = Counter()
        self._candidates: List[Tuple[nn.Module, nn.Module, int]] = []

    def __enter__(self) -> 'FoldFinder':
        for layer in self._module.modules():
            if isinstance(layer, (SlimConv2d, SlimConv3d)) and layer.folds:
                handle = layer.register_forward_hook(self._after_convolution)
            elif isinstance(layer, SlimBatchNorm) and layer.folds:
                handle = layer.register_forward_pre_hook(self._before_norm)
            else:
                continue
            self._stack.callback(handle.remove)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def pairs(self, outputs: Any) -> List[Tuple[nn.Module, nn.Module]]:
        """List convolutions and batch norms, after the block.

        Args:
            outputs: What the forward pass returned, which is a use, too.
        """
        self._count(outputs)
        return [
            (convolution, norm)
            for convolution, norm, key in self._candidates
            if self._uses[key] == 1
            and self._runs[convolution] == self._runs[norm] == 1
        ]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self._count((args, kwargs))
        return func(*args, **(kwargs or {}))

    def _count(self, values: Any) -> None:
        for value in tree_flatten(values)[0]:
            if id(value) in self._made:
                self._uses[id(value)] += 1

    def _after_convolution(
        self, layer: nn.Module, args: Tuple[Tensor, ...], out: Tensor
    ) -> None:
        self._runs[layer] += 1
        self._made[id(out)] = out, layer

    def _before_norm(self, layer: nn.Module, args: Tuple[Tensor, ...]) -> None:
        self._runs[layer] += 1
        key = id(args[0])
        if key in self._made:
            self._candidates.append((self._made[key][1], layer, key))
