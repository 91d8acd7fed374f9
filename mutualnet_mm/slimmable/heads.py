# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Attention that runs its leading heads.

A width keeps whole heads: the rows of the layers that make queries, keys and
values, the columns of the one that takes their results, and the entries that
a head has in tables of position biases. What comes in and goes out keeps all
of its channels.

The stock ``forward`` does the work at every width. It reads the number of
heads, and all that is theirs, off its module: so it is run on a stand-in that
has less of it.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .channels import LayerRule, Ranges, active_channels, take
from .state import SlimState


@dataclass(frozen=True)
class Heads:
    """Where an attention class keeps what is its heads'.

    Args:
        makers (dict): Linear layers whose output is heads, by path, and of
            how many parts: 3 where the queries of all heads come first, then
            the keys, then the values; 1 where a head has all of its own in a
            row. Defaults to ``dict(qkv=3)``.
        sizes (tuple[str]): Attributes that count heads, or the channels of
            all heads. Defaults to ``('num_heads',)``.
        tensors (dict): Parameters that have an entry for each head, or for
            each channel of all heads, and along which axis. Defaults to none.
        arguments (dict): The same of tensors that ``forward`` is given by
            name. Defaults to none.
        apart (tuple[str]): Layers that see each head for itself. Defaults to
            none.
        reads_input (bool): Whether ``forward`` reads the number of channels
            of all heads off its input. Defaults to False.
        reads_weights (tuple[str]): Makers that ``forward`` does not call: it
            multiplies by their weights. Defaults to none.
    """

    makers: Mapping[str, int] = field(default_factory=lambda: {'qkv': 3})
    sizes: Tuple[str, ...] = ('num_heads',)
    tensors: Mapping[str, int] = field(default_factory=dict)
    arguments: Mapping[str, int] = field(default_factory=dict)
    apart: Tuple[str, ...] = ()
    reads_input: bool = False
    reads_weights: Tuple[str, ...] = ()


class SlimHeads(nn.Module):
    """Mixin of attention modules that run their leading heads.

    Attributes:
        prefix (str): Of the name of what it is mixed into.
        slim_state (SlimState, optional): The active subnet; None in the
            static form, which has no others.
        heads (Heads): Where the stock class keeps what is its heads'.
        built_heads (int): Heads at the widest setting.
    """

    prefix = 'Slim'
    slim_state: Optional[SlimState]
    heads: Heads
    built_heads: int
    num_heads: int

    def follow(self, heads: Heads, state: SlimState) -> None:
        """Set what the swap adds."""
        self.heads, self.slim_state = heads, state
        self.built_heads = self.num_heads

    def leave(self) -> None:
        """Be the stock module again."""
        self.__class__ = self.stock_class
        for name in ('heads', 'slim_state', 'built_heads'):
            delattr(self, name)

    @property
    def rule(self) -> LayerRule:
        """LayerRule: Of what counts heads, or the channels of all heads."""
        return LayerRule(heads=self.built_heads)

    @property
    def active_heads(self) -> int:
        """int: Heads at the active width."""
        state = self.slim_state
        if state is None:
            return self.num_heads
        return active_channels(
            self.built_heads, state.width, state.max_width, self.rule
        )

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the stock ``forward`` with the active heads."""
        active, layer = self.active_heads, self
        if active < self.built_heads:
            layer = self._stand_in()
            for name, axis in self.heads.arguments.items():
                if kwargs.get(name) is not None:
                    kwargs[name] = kwargs[name].narrow(axis, 0, active)
            if self.heads.reads_input:
                x = _Tokens(x, x.shape[-1] // self.built_heads * active)
        return super(SlimHeads, layer).forward(x, *args, **kwargs)

    def narrowed(self) -> Dict[str, Tensor]:
        """Active part of the parameters that no slim layer narrows.

        Returns:
            dict: Views or copies, by path.
        """
        found = {}
        for name, axis in self.heads.tensors.items():
            tensor = self._parameters.get(name)
            if tensor is not None:
                ranges = self.ranges(tensor.shape[axis])
                found[name] = take(tensor, ranges, axis)
        for path in self.heads.reads_weights:
            layer: Any = self.get_submodule(path)
            for name, tensor in layer._parameters.items():
                if tensor is not None:
                    ranges = self.ranges(len(tensor), self.heads.makers[path])
                    found[f'{path}.{name}'] = take(tensor, ranges)
        return found

    def settle(self) -> None:
        """Keep the active heads alone, for good: the static form."""
        narrow, sizes = self.narrowed(), self._active_sizes()
        for path, part in narrow.items():
            place, _, name = path.rpartition('.')
            owner: Any = self.get_submodule(place)
            whole = getattr(owner, name)
            if part.shape != whole.shape:
                part = nn.Parameter(part.detach().clone(), whole.requires_grad)
                setattr(owner, name, part)
        for path in self.heads.reads_weights:
            layer: Any = self.get_submodule(path)
            layer.out_features = len(layer.weight)
        for name, size in dict(sizes, slim_state=None).items():
            setattr(self, name, size)

    def blind(self) -> None:
        """Make the module, run at full width, see the active heads alone.

        For the proof of :mod:`.verify`. Nothing is to be done where a slim
        layer takes the heads' results.
        """

    def ranges(self, size: int, parts: int = 1) -> Ranges:
        """Places of the active heads along an axis of ``size`` entries."""
        part = size // parts
        kept = part // self.num_heads * self.active_heads
        if kept == part:
            return ((0, size),)
        return tuple((i * part, i * part + kept) for i in range(parts))

    def _active_sizes(self) -> Dict[str, int]:
        active = self.active_heads
        return {
            name: getattr(self, name) // self.num_heads * active
            for name in self.heads.sizes
        }

    def _stand_in(self) -> 'SlimHeads':
        """Return a module of the active heads that has the same layers.

        This one is not changed: another thread may be running it.
        """
        layer: Any = object.__new__(type(self))
        own, active = vars(layer), self.narrowed()
        own.update(vars(self), **self._active_sizes())
        own['_parameters'] = {
            name: active.get(name, value)
            for name, value in self._parameters.items()
        }
        own['_modules'] = modules = dict(self._modules)
        for path in self.heads.makers:
            child = path.split('.')[0]
            if path in self.heads.reads_weights:
                modules[child] = SimpleNamespace(
                    weight=active[f'{path}.weight'],
                    bias=active.get(f'{path}.bias'),
                )
            elif self.heads.reads_input:
                modules[child] = _seeing_all(self._modules[child])
        return layer


class BiasedHeads(SlimHeads):
    """Heads that add biases by the distance of places (LeViT).

    Outside of training the stock module keeps the biases of all pairs of
    places in ``ab``, made by ``eval()``; here they are always those of the
    parameters at hand.
    """

    @property
    def ab(self) -> Tensor:
        """Tensor: Biases, ``(active heads, places, places)``."""
        biases: Any = self.attention_biases
        return biases[:, self.attention_bias_idxs]

    @ab.setter
    def ab(self, value: Tensor) -> None:
        del value

    @ab.deleter
    def ab(self) -> None:
        pass


class _Tokens:
    """What a stock ``forward`` is given where it reads channels off it.

    Says how many channels the active heads have; what multiplies it by a
    matrix gets all channels.
    """

    def __init__(self, whole: Tensor, channels: int) -> None:
        self.whole, self.channels = whole, channels

    @property
    def shape(self) -> Tuple[int, ...]:
        """tuple: With the channels of the active heads."""
        return (*self.whole.shape[:-1], self.channels)

    def __getitem__(self, index: Any) -> '_Tokens':
        return _Tokens(self.whole[index], self.channels)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map(
            lambda x: x.whole if isinstance(x, cls) else x,
            (args, kwargs or {}),
        )
        return func(*args, **kwargs)


def _seeing_all(layer: Any) -> Callable[[Any], Tensor]:
    """A layer that takes :class:`_Tokens` for what they are."""
    return lambda x: layer(x.whole if isinstance(x, _Tokens) else x)
