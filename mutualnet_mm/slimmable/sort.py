# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Sort the channels of a trained network, the important ones first.

A width keeps the leading channels. Those of a network that was trained alone
are any ones; sorted, they are the ones that matter, so that narrow subnets
start far better. The full network computes what it did before.
"""

import copy
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from ..errors import ConfigError
from .batch_norms import SlimBatchNorm
from .channel_trace import traced
from .channels import Ranges, take
from .convert import stock_name
from .coupled import Coupled, Couplings, Places
from .importance import Ranking, check_measure
from .outputs import tensors
from .private_affines import private_affines
from .slim_layer import SlimLayer
from .trace import watch_channels
from .trial import Shape, trial_shapes
from .vectors import vector_axis
from .verify import is_equal, proof_copy, randomise


@dataclass(frozen=True)
class SortedChannels:
    """Coupled channels that were sorted, or had to stay as they were.

    Args:
        layers (tuple[str]): The layers that make them.
        channels (int): How many.
        unit (int): Neighbours that stay together, as in groups.
        measure (str): What they were sorted by, see
            :data:`~.importance.MEASURES`; empty if they stay.
        stays (str): Why they stay; empty if they were sorted.
    """

    layers: Tuple[str, ...]
    channels: int
    unit: int
    measure: str
    stays: str


def sort_channels(
    module: nn.Module,
    by: str = 'bn',
    name: Optional[str] = None,
    size: int = 32,
    frames: int = 8,
    input_shape: Optional[Sequence[int]] = None,
    tolerance: float = 1e-7,
) -> List[SortedChannels]:
    """Permute the channels of a slim network, the most important ones first.

    Coupled ones move together: those that are added to each other or
    multiplied by a gate, with the norms and convolutions of each channel
    behind them, and the columns of all layers that take them. Each part that
    narrows for itself is sorted for itself; groups move as a whole. Channels
    stay as they are where their order is seen: where they leave the network,
    in the heads of attention, and where an operator is not understood.

    Nothing is believed because it was followed: in double precision, outputs
    have to be those of before, with the network's own parameters and with
    random ones. What is wrong alone stays as it was.

    Args:
        module (nn.Module): Converted and proven to narrow. Its parameters and
            buffers are changed in place.
        by (str): A key of :data:`~.importance.MEASURES`. Defaults to
            ``'bn'``.
        name (str, optional): What errors call it. Defaults to the name of the
            stock class.
        size (int): See :func:`~.trial.trial_shapes`. Defaults to 32.
        frames (int): See there. Defaults to 8.
        input_shape (Sequence[int], optional): See there. Defaults to None.
        tolerance (float): Largest difference of an output, relative to its
            largest value. Defaults to 1e-7.

    Returns:
        list[SortedChannels]: All channels of which narrow widths leave some
        out; at last, if there are any, layers that did not run.

    Raises:
        ConfigError: If the outputs are others afterwards. Nothing is changed
            then.
    """
    check_measure(by)
    name = name or stock_name(module)
    with torch.device('cpu'):  # whatever the default device is
        net = proof_copy(module)
        shapes = trial_shapes(name, net, size, frames, input_shape)
        orders = _Orders(net, shapes[0], by)
        _prove(name, net, orders, shapes, tolerance)
    _permute(module, orders.plan(orders.moving))
    return orders.report()


# By name of a layer, where its columns and its rows come from; of a vector,
# where its places do.
_Plan = Dict[str, Tuple[Places, Places]]


class _Orders:
    """The new order of all coupled channels of a network."""

    def __init__(self, net: nn.Module, shape: Shape, by: str) -> None:
        x = torch.zeros(shape, dtype=torch.double)
        with watch_channels(net) as channels, _Uses() as uses:
            self._trace, outputs = traced(net, x)
        self._inputs = {
            name: channels[layer][0]
            for name, layer in net.named_modules()
            if layer in channels
        }
        self.idle = tuple(
            name
            for name, layer in net.named_modules()
            if isinstance(layer, SlimLayer)
            and layer not in channels
            and uses.none_of(layer)
        )
        self._couplings = Couplings(net, self._trace, outputs)
        self.groups = self._couplings.groups
        ranking = Ranking(net, self._trace, self._couplings, by)
        self._new: Dict[int, List[int]] = {}
        self._measures: Dict[int, str] = {}
        for group in self.groups:
            order, measure = ranking.order(group)
            self._new[id(group)], self._measures[id(group)] = order, measure
            if not measure and not group.stays:
                group.stays = 'nothing says how important they are'

    @property
    def moving(self) -> List[Coupled]:
        """list[Coupled]: Those that are not in order yet."""
        return [
            group
            for group in self.groups
            if not group.stays and self._new[id(group)] != group.roots
        ]

    def plan(self, groups: Sequence[Coupled]) -> _Plan:
        """What becomes of each layer and vector if groups are sorted."""
        couplings, trace = self._couplings, self._trace
        images = couplings.images(
            {
                root: source
                for group in groups
                for root, source in zip(group.roots, self._new[id(group)])
            }
        )
        found: _Plan = {}
        for name, number in self._inputs.items():
            columns = couplings.input_places(name, images)
            found[name] = columns or [*range(number)], []
        for name in filter(None, trace.made):
            columns, _ = found.get(name, ([], []))
            found[name] = columns, couplings.made_places(name, images)
        return {
            name: pair
            for name, pair in found.items()
            if any(row != sorted(row) for row in pair)
        }

    def report(self) -> List[SortedChannels]:
        """Say what was done with each group."""
        found = []
        for group in self.groups:
            measure = '' if group.stays else self._measures[id(group)]
            size, unit = len(group.roots), group.unit
            found.append(
                SortedChannels(group.layers, size, unit, measure, group.stays)
            )
        if self.idle:
            reason = (
                'layers did not run, and if they do, as a branch for training '
                'alone, they meet channels in another order'
            )
            found.append(SortedChannels(self.idle, 0, 1, '', reason))
        return found


class _Uses(TorchDispatchMode):
    """Notes which tensors are used in a ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self._used: Set[int] = set()

    def none_of(self, layer: nn.Module) -> bool:
        """Whether a layer has parameters, and none of them was used."""
        own = [p for p in layer._parameters.values() if p is not None]
        return bool(own) and not any(id(p) in self._used for p in own)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self._used.update(map(id, tree_flatten((args, kwargs))[0]))
        return func(*args, **(kwargs or {}))


def _prove(
    name: str,
    net: nn.Module,
    orders: _Orders,
    shapes: Sequence[Shape],
    tolerance: float,
) -> None:
    """Let those stay as they are whose new order is wrong."""
    generator = torch.Generator().manual_seed(0)
    other = copy.deepcopy(net)
    randomise(other, generator)
    trials = []
    for shape in shapes:
        x = torch.randn(shape, generator=generator, dtype=torch.double)
        trials += [(trial, x, _outputs(trial, x)) for trial in (net, other)]

    def holds(groups: Sequence[Coupled]) -> bool:
        plan = orders.plan(groups)
        for trial, x, before in trials:
            after = copy.deepcopy(trial)
            _permute(after, plan)
            new = _outputs(after, x)
            if len(new) != len(before) or not all(
                is_equal(*pair, tolerance) for pair in zip(new, before)
            ):
                return False
        return True

    if holds(orders.moving):
        return
    if not holds([]):
        raise ConfigError(
            f'the channels of {name} cannot be sorted: what it computes is '
            'not finite, or differs from call to call; check its weights'
        )
    for group in orders.moving:
        if not holds([group]):
            group.stays = (
                'something takes them in a way that is not understood: the '
                'outputs would be others'
            )
    if not holds(orders.moving):
        layers = sorted({n for g in orders.moving for n in g.layers})
        raise ConfigError(
            f'the channels of {name} cannot be sorted: with those of the '
            f'layers {", ".join(layers)} in another order its outputs are '
            'others'
        )


def _outputs(net: nn.Module, x: Tensor) -> List[Tensor]:
    with torch.no_grad():
        return [out.clone() for out in tensors(net(x))]


def _permute(net: nn.Module, plan: _Plan) -> None:
    """Carry a plan out, in place."""
    modules: Dict[str, Any] = dict(net.named_modules())
    for name, (columns, rows) in plan.items():
        layer = modules.get(name)
        if isinstance(layer, SlimLayer):
            new = _permuted(layer, columns, rows)
            for _, affine in private_affines(layer):
                _write(affine, _permuted_affine(affine, columns))
        else:
            path, _, key = name.rpartition('.')
            layer = modules[path]
            vector = layer._parameters[key]
            axis = vector_axis(vector) or 0
            new = {key: take(vector, _ranges(rows), axis)}
        _write(layer, new)


def _write(layer: nn.Module, new: Dict[str, Tensor]) -> None:
    # All of a layer are read before one is written.
    for key, value in {k: v.clone() for k, v in new.items()}.items():
        tensors_of = layer._parameters, layer._buffers
        owner: Any = next(group for group in tensors_of if key in group)
        owner[key].data.copy_(value)


def _permuted_affine(affine: nn.Module, columns: Places) -> Dict[str, Tensor]:
    return {
        name: take(value.detach(), _ranges(columns))
        for name, value in affine.named_parameters()
    }


def _permuted(
    layer: SlimLayer, columns: Places, rows: Places
) -> Dict[str, Tensor]:
    """Parameters and buffers of a layer in another order.

    It is the layer's own slicing that brings them there.
    """
    other: Any = object.__new__(type(layer))
    inputs, outputs = _ranges(columns), _ranges(rows)
    vars(other).update(
        vars(layer),
        columns=lambda _: inputs,
        rows=lambda _: outputs,
    )
    found = dict(other.narrowed(len(columns)))
    if isinstance(layer, SlimBatchNorm):
        names = ('running_mean', 'running_var')
        found.update(zip(names, other.active_statistics(len(columns))))
    return {k: v.detach() for k, v in found.items() if v is not None}


def _ranges(places: Places) -> Ranges:
    """Places as ranges of neighbours."""
    found: List[Tuple[int, int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1] = found[-1][0], place + 1
        else:
            found.append((place, place + 1))
    return tuple(found)
