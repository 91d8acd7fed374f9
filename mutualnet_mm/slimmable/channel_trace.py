# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Follow every channel of a network from the layer that makes it.

One recorded forward pass: beside each tensor goes another one of the same
shape that says, place by place, which channel it holds. What only moves values
about (views, concatenations, shuffles) is done to both.
"""

from contextlib import ExitStack
from typing import (
    Any,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from ..errors import ConfigError
from .channel_maps import (
    NOTHING,
    atoms_of,
    on_second_axis,
    parts_of,
    reduced,
    stretched,
    varies,
)
from .channel_sets import ChannelSets
from .heads import SlimHeads
from .operators import (
    ELEMENTWISE,
    MOVING,
    NORMS,
    PLACEWISE,
    PRODUCTS,
    REDUCING,
    RESAMPLING,
    convolves_each,
)
from .outputs import tensors
from .slim_layer import SlimLayer
from .vectors import SlimVectors, vector_axis


def traced(
    module: nn.Module, x: Tensor
) -> 'Tuple[ChannelTrace, List[Tensor]]':
    """Run a network once, and follow its channels.

    Args:
        module (nn.Module): With slim layers, at the widest setting and in
            evaluation mode.
        x (Tensor): An input that it takes; on the meta device nothing is
            computed.

    Returns:
        tuple: The trace, and the tensors that the network returns.

    Raises:
        ConfigError: If it returns none.
    """
    with torch.no_grad(), ChannelTrace(module) as trace:
        trace.start(x)
        out = module(x)
    outputs = list(tensors(out))
    if not outputs:
        raise ConfigError(
            f'it returns a {type(out).__name__} in which no tensor was found: '
            'return tensors, or tuples, lists, dictionaries or data classes '
            'of them'
        )
    return trace, outputs


class Atom(NamedTuple):
    """One channel: that of a layer, or of the network's input (no name)."""

    layer: str
    channel: int


class ChannelTrace(TorchDispatchMode):
    """Records a forward pass of ``module`` in a ``with`` block.

    At the widest setting, on any device.

    Args:
        module (nn.Module): With slim layers.

    Attributes:
        atoms (list[Atom]): All channels seen. The first one is
            :data:`NOTHING`.
        inputs (dict): For each slim layer that ran the channels of its
            inputs, run by run: indices of ``atoms``, or None where they are
            not known.
        made (dict): Channels that each layer makes, by its name: indices of
            ``atoms``. Those of the network's input have no name.
        vectors (dict): Channels of each vector that follows the width, by the
            module that holds it and its name there. They are united with
            those that they meet.
        mixed (set[int]): Channels that something but a layer computes with
            others, or with a tensor that has numbers for all of them.
        astray (dict): Channels that lie along another axis than that of the
            channels in an input of a slim layer, by its name.
        sets (ChannelSets): Channels that are added to each other, and the
            parts that they lie in.
        unknown (set[str]): Operators that were not understood.
        takes_apart (bool): Whether an operator takes channels apart.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.atoms: List[Atom] = [Atom('', -1)]
        self.inputs: Dict[str, List[Optional[List[int]]]] = {}
        self.made: Dict[str, range] = {}
        self.vectors: Dict[Tuple[SlimVectors, str], List[int]] = {}
        self.sets = ChannelSets()
        self.unknown: Set[str] = set()
        self.mixed: Set[int] = set()
        self.astray: Dict[str, Set[int]] = {}
        self.takes_apart = False
        # Tensors are kept: the identity of a freed one is given anew.
        self._seen: Dict[int, Tuple[Tensor, Tensor]] = {}
        self._inside = 0
        self._module = module
        self._stack = ExitStack()

    def __enter__(self) -> 'ChannelTrace':
        for name, layer in self._module.named_modules():
            if isinstance(layer, SlimLayer):
                for handle in self._watch(name, layer):
                    self._stack.callback(handle.remove)
            elif isinstance(layer, SlimHeads):
                for handle in self._watch_heads(name, layer):
                    self._stack.callback(handle.remove)
            elif isinstance(layer, SlimVectors):
                for key, vector in layer.narrowed().items():
                    made = self._new(f'{name}.{key}', vector.numel())
                    self.vectors[layer, key] = made
                    self._set(vector, made, vector_axis(vector) or 0)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def start(self, x: Tensor) -> None:
        """Number the channels of the network's input."""
        self._set(x, self._new('', x.shape[1]), 1)

    def channels(self, x: Tensor, dim: int) -> Optional[List[int]]:
        """The channels along ``dim``; None where they are not known."""
        found = self._of(x)
        if found is None or not found.dim() or not found.numel():
            return None
        found = found.movedim(dim, 0).reshape(found.shape[dim], -1)
        first = found.amax(1)
        if ((found != first[:, None]) & (found != NOTHING)).any():
            return None
        return first.tolist()

    def output_axis(self, out: Tensor) -> int:
        """Axis of the channels in what the network returns.

        By default the second one of maps, the last one of tokens and scores;
        where no channels lie along that, the other one.
        """
        usual = -1 if out.dim() < 4 else 1
        other = 1 if usual == -1 else -1
        if out.dim() < 3 or self.channels(out, usual) is not None:
            return usual
        return usual if self.channels(out, other) is None else other

    def all_channels(self, x: Tensor) -> Set[int]:
        """All channels that lie anywhere in a tensor."""
        found = self._of(x)
        return set() if found is None else atoms_of(found)

    # ---- Layers

    def _watch(self, name: str, layer: SlimLayer) -> Sequence[Any]:
        def before(layer: Any, args: Any, kwargs: Any) -> None:
            runs = self.inputs.setdefault(name, [])
            axis = layer.axis(args[1:], kwargs)
            runs.append(self.channels(args[0], axis))
            if runs[-1] is None:
                found = self.all_channels(args[0])
                self.astray.setdefault(name, set()).update(found)
            self.sets.label_parts(runs[-1], layer.input_parts)
            self._inside += 1

        def after(layer: Any, args: Any, kwargs: Any, out: Tensor) -> None:
            self._inside -= 1
            channels = self.inputs[name][-1]
            axis = layer.axis(args[1:], kwargs)
            if layer.follows:
                channels = channels and layer.kept_with(channels)
            else:
                channels = self._new(name, out.shape[axis])
                self.sets.label_parts(channels, layer.parts)
            if channels is not None:
                self._set(out, channels, axis)

        return (
            layer.register_forward_pre_hook(before, with_kwargs=True),
            layer.register_forward_hook(after, with_kwargs=True),
        )

    def _watch_heads(self, name: str, heads: SlimHeads) -> Sequence[Any]:
        """Keep heads apart: what happens inside is not followed."""

        def before(heads: Any, args: Any, kwargs: Any) -> None:
            given = map(self._of, _tensors((args, kwargs)))
            self._mix([found for found in given if found is not None])
            self._inside += 1

        def after(*_: Any) -> None:
            self._inside -= 1
            for path, parts in heads.heads.makers.items():
                made = self.made.get(f'{name}.{path}', ())
                self.sets.label_parts(list(made) or None, parts)

        return (
            heads.register_forward_pre_hook(before, with_kwargs=True),
            heads.register_forward_hook(after),
        )

    def _new(self, name: str, number: int) -> List[int]:
        if name not in self.made:  # a shared layer makes the same ones
            first = len(self.atoms)
            self.atoms += [Atom(name, channel) for channel in range(number)]
            self.made[name] = range(first, first + number)
        return list(self.made[name])

    # ---- Tensors

    def _of(self, x: Any) -> Optional[Tensor]:
        return self._seen[id(x)][1] if id(x) in self._seen else None

    def _set(self, x: Tensor, channels: List[int], dim: int) -> None:
        shape = [1] * x.dim()
        shape[dim] = -1
        self._inside += 1  # what is done here is not of the network
        row = torch.tensor(channels, device='cpu').view(shape)
        self._seen[id(x)] = x, row.expand(x.shape).contiguous()
        self._inside -= 1

    # ---- Operators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self._inside:
            self._follow(func, args, kwargs or {}, out)
        return out

    def _follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        flat = _tensors((args, kwargs))
        given = [found for found in map(self._of, flat) if found is not None]
        if not given:
            return
        name = func.overloadpacket.__name__
        stem = name[:-1] if name.endswith('_') else name
        result: Any
        if stem in MOVING:
            result = self._moved(func, stem, args, kwargs, given)
        elif stem in PRODUCTS:
            self._mix(given)
            result = self._product(*(args[i] for i in PRODUCTS[stem]))
        elif stem.startswith(RESAMPLING):
            result = stretched(given[0], _first(out).shape)
        elif convolves_each(func, args):
            self._mix(given)
            result = stretched(given[0], _first(out).shape)
        elif stem in REDUCING:
            result = reduced(given[0], _first(out).shape, args[1:])
            if atoms_of(result) != atoms_of(given[0]):
                self._mix(given)
        elif torch.Tag.pointwise in func.tags or stem in (*PLACEWISE, 'copy'):
            shape = _first(out).shape
            if stem in NORMS:
                given = [on_second_axis(g, len(shape)) for g in given]
                # Outside of a layer nobody says how wide the groups are.
                self.takes_apart |= stem == 'native_group_norm'
            result = self._merged(given, shape)
            whole = stem in PLACEWISE - ELEMENTWISE
            if whole or self._meets_others(flat, result):
                self._mix(given)
        else:
            self.unknown.add(stem)
            self._mix(given)
            return
        if result is None:
            return
        outs = out if isinstance(out, (list, tuple)) else (out,)
        results = result if isinstance(result, (list, tuple)) else (result,)
        for x, found in zip(outs, results):
            old = self._of(x)
            if name != stem and old is not None and old.shape == found.shape:
                old.copy_(found)  # views of it change with it
            else:
                self._seen[id(x)] = x, found

    def _moved(
        self, func: Any, stem: str, args: Any, kwargs: Any, given: List[Tensor]
    ) -> Any:
        def channels(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            found = self._of(x)
            if found is None:
                return torch.full(x.shape, NOTHING, device='cpu')
            return found

        args, kwargs = tree_map(channels, (args, kwargs))
        kwargs = {k: v for k, v in kwargs.items() if k != 'memory_format'}
        if stem == 'constant_pad_nd':
            args = (*args[:2], NOTHING)
        if stem == 'im2col':  # not for whole numbers
            x, *others = args
            return func(x.double(), *others, **kwargs).to(x.dtype)
        try:
            result = func(*args, **kwargs)
        except RuntimeError:  # strides of another kind than the tensor's
            args = tree_map(
                lambda x: x.contiguous() if isinstance(x, Tensor) else x, args
            )
            result = func(*args, **kwargs)
        if stem.endswith('channel_shuffle'):
            parts = [atoms_of(part) for part in args[0].chunk(args[1], 1)]
        else:
            parts = parts_of(given[0], result)
        self.takes_apart |= bool(parts)
        self.sets.label(parts)
        return result

    def _merged(self, given: List[Tensor], shape: torch.Size) -> Tensor:
        """What is computed place by place has the channels of all.

        But for a single one that meets several, such as a gate.
        """
        result = torch.full(shape, NOTHING, device='cpu')
        for found in given:
            if found.shape != shape and len(atoms_of(found)) == 1:
                continue
            found = found.expand(shape)
            both = (result != found) & (result != NOTHING) & (found != NOTHING)
            if both.any():
                number = len(self.atoms)  # one number for a pair sorts faster
                pairs = (result[both] * number + found[both]).unique()
                for pair in pairs.tolist():
                    self.sets.unite(*divmod(pair, number))
            result = torch.where(result == NOTHING, found, result)
        return result

    def _product(self, a: Tensor, b: Tensor) -> Optional[Tensor]:
        """Matrices: channels that are summed over have to be the same.

        What is summed over may be something else, such as pixels.
        """
        left, right = self._of(a), self._of(b)
        rows = columns = None
        if left is not None:
            rows = reduced(left, (*left.shape[:-1], 1), ([-1],))
        if right is not None:
            columns = reduced(right, (*right.shape[:-2], 1, -1), ([-2],))
        if left is not None and right is not None:
            summed = left[..., :1, :].mT, right[..., :, :1]
            if any((x != x[..., :1, :]).any() for x in summed):
                self._merged([*summed], torch.Size((*right.shape[:-1], 1)))
        shape = torch.Size((*a.shape[:-1], b.shape[-1]))
        parts = [p.expand(shape) for p in (rows, columns) if p is not None]
        result = torch.full(shape, NOTHING, device='cpu')
        for part in parts:
            result = torch.where(result == NOTHING, part, result)
        return result

    def _mix(self, given: List[Tensor]) -> None:
        self.mixed.update(*map(atoms_of, given))

    def _meets_others(self, flat: List[Tensor], result: Tensor) -> bool:
        """Whether a tensor without channels has numbers along theirs."""
        plain = [x for x in flat if self._of(x) is None and x.numel() > 1]
        return any(
            x.shape[-axis] > 1 and varies(result, result.dim() - axis)
            for x in plain
            for axis in range(1, x.dim() + 1)
        )


def _tensors(values: Any) -> List[Tensor]:
    return [x for x in tree_flatten(values)[0] if isinstance(x, Tensor)]


def _first(out: Any) -> Tensor:
    return out[0] if isinstance(out, (list, tuple)) else out
