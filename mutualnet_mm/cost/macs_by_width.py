# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Multiply-accumulates at very many widths, from one trace per size."""

from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..models import MutualLearningMixin
from ..models.layers.deformable import SlimDeformConv2d
from ..slimmable.macs import count_on_meta, pass_on_meta
from ..slimmable.meta import meta_copy
from ..slimmable.params import params_of_pass
from ..subnet import Size, Subnet
from .macs import count_forward

_Run = Tuple[int, int]
"""Products of the channels of a layer's run, and of all its other sizes."""


class MacsByWidth:
    """Counts as :func:`~.macs.count_macs` does, fast at many widths.

    The channels of a layer depend on the width alone, all its other sizes on
    the resolution and the frames alone. So the network is traced once at each
    size and run once at each width, where only channels are noted; the rest
    is integer arithmetic. Each trace is compared with a count at the smallest
    width: a network whose counts are not such products (attention over
    channels, say) is counted at every width instead.

    Args:
        model (MutualLearningMixin): As built from a config.
        image_shape (tuple[int], optional): As for :func:`~.macs.count_macs`.
            Defaults to None.
        forward (Callable, optional): ``forward(model, inputs)``, what is
            counted. Defaults to what :func:`~.macs.count_macs` counts.
    """

    def __init__(
        self,
        model: MutualLearningMixin,
        image_shape: Optional[Size] = None,
        forward: Optional[Callable[..., Any]] = None,
    ) -> None:
        self._model, self._shape = model, image_shape
        self._forward = forward or model.task.forward_cost
        self._net = meta_copy(model)  # a thread may be running the model
        self._channels: Dict[Any, List[int]] = {}
        self._params: Dict[Any, int] = {}
        self._sizes: Dict[Any, Optional[Tuple[List[int], int]]] = {}
        self._counts: Dict[Subnet, int] = {}

    def __call__(self, subnet: Subnet) -> int:
        """Multiply-accumulates of ``subnet`` for one image."""
        if subnet not in self._counts:
            self._counts[subnet] = self._count(subnet)
        return self._counts[subnet]

    def _count(self, subnet: Subnet) -> int:
        size = subnet.resolution, subnet.frames
        if size not in self._sizes:
            self._sizes[size] = self._trace(subnet)
        found = self._sizes[size]
        if found is None:
            counted = count_forward(
                self._model, subnet, self._shape, self._forward
            )
            return counted[0]
        return _total(self._channels_at(subnet), *found)

    def _trace(self, subnet: Subnet) -> Optional[Tuple[List[int], int]]:
        """Sizes of all runs and the remaining MACs; None if not products."""
        space, size = self._model.space, (subnet.resolution, subnet.frames)
        widest = Subnet(space.max_width, *size)
        with _watch(self._net) as runs:
            macs = self._run(widest, count_on_meta)
        sizes = [others for _, others in runs]
        rest = macs - _total([channels for channels, _ in runs], sizes, 0)
        narrow = Subnet(space.min_width, *size)
        channels = self._channels_at(narrow)
        if len(channels) != len(sizes) or _total(
            channels, sizes, rest
        ) != self._run(narrow, count_on_meta):
            return None
        return sizes, rest

    def params(self, subnet: Subnet) -> int:
        """Parameters of a subnet, found in the same pass.

        Those that the counted forward runs count as narrow as they are.
        """
        self._channels_at(subnet)
        return self._params[subnet.width]

    def _channels_at(self, subnet: Subnet) -> List[int]:
        if subnet.width not in self._channels:
            with _watch(self._net) as runs, self._net.activate(subnet):
                self._params[subnet.width] = params_of_pass(
                    self._net, lambda: self._run(subnet, pass_on_meta)
                )
            self._channels[subnet.width] = [channels for channels, _ in runs]
        return self._channels[subnet.width]

    def _run(self, subnet: Subnet, how: Callable[..., Any]) -> Any:
        net = self._net
        with net.activate(subnet):
            batch = net.task.meta_input(net, subnet, self._shape)
            return how(net, batch, forward=self._forward)


def _total(channels: List[int], sizes: List[int], rest: int) -> int:
    return sum(a * b for a, b in zip(channels, sizes)) + rest


@contextmanager
def _watch(net: nn.Module) -> Iterator[List[_Run]]:
    """Note every run of a layer whose cost depends on channels, in order."""
    runs: List[_Run] = []

    def layer_run(layer: Any, args: Tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            inputs, outputs = args[0].shape[-1], out.shape[-1]
            runs.append((inputs * outputs, out.numel() // outputs))
            return
        x = args[0]
        if layer.transposed:  # the kernel is applied at the input's places
            x, out = out, x
        inputs, outputs, groups = x.shape[1], out.shape[1], layer.groups
        others = out.numel() // outputs * prod(layer.kernel_size)
        if getattr(layer, 'drops_groups', False):  # their width stays
            inputs, groups, others = 1, 1, others * layer.weight.shape[1]
        runs.append((inputs * outputs // groups, others))

    def pool_run(_: nn.Module, args: Tuple[Tensor, ...], out: Tensor) -> None:
        if all(size == 1 for size in out.shape[2:]):
            channels = args[0].shape[1]
            runs.append((channels, args[0].numel() // channels))

    with ExitStack() as stack:
        for layer in net.modules():
            hook: Any = None
            if isinstance(layer, nn.modules.pooling._AdaptiveAvgPoolNd):
                hook = pool_run
            elif isinstance(layer, (_ConvNd, SlimDeformConv2d, nn.Linear)):
                hook = layer_run
            if hook is not None:
                stack.callback(layer.register_forward_hook(hook).remove)
        yield runs
