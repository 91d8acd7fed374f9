# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Joints of channels: concatenations, splits and shuffles, found by tracing.

A layer behind a concatenation meets the leading part of *each* piece, and a
layer whose output is split keeps the leading part of each part. One recorded
pass (:mod:`.channel_trace`) tells which; nothing is believed because of that:
the proof at build (:mod:`.verify`) judges.
"""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby
from math import gcd, lcm
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from torch import Tensor, nn

from ..errors import ConfigError
from .channel_trace import ChannelTrace, traced
from .channels import PLAIN, LayerRule, Layout, Piece
from .slim_layer import SlimLayer
from .vectors import SlimVectors


@dataclass(frozen=True)
class Joints:
    """What one pass told.

    Args:
        input_shape (tuple[int]): Shape of the input that was run.
        outputs (list): Layout of each tensor that the network returns, in
            order; None where its active channels are the leading ones.
        axes (tuple[int]): The axis of each one's channels.
        unknown (tuple[str]): Operators whose effect on channels is not
            known, by name. What they return is taken for whole.
        alike (bool): Whether it is plain that counts of channels fit at every
            width: those that meet are rounded alike, and nothing but layers
            takes channels apart or wants whole groups.
        whole (bool): Whether all outputs of layers are known to keep all of
            their channels at every width. Defaults to False.
    """

    input_shape: Tuple[int, ...]
    outputs: Tuple[Optional[Layout], ...]
    axes: Tuple[int, ...]
    unknown: Tuple[str, ...]
    alike: bool
    whole: bool = False

    @property
    def lead(self) -> bool:
        """bool: Whether active channels of all outputs are the leading ones.

        Otherwise layers that take the outputs and that no joint was found
        for would meet the wrong ones.
        """
        return not any(self.outputs)


def find_joints(module: nn.Module, x: Tensor) -> Joints:
    """Tell each slim layer which channels it gets and keeps.

    Sets ``slim_inputs`` and ``slim_outputs``, and where parts or groups have
    to stay whole ``slim_rule``. A layer that does not run, as in a branch for
    training alone, is marked so: it raises where it would have to narrow.

    Args:
        module (nn.Module): With slim layers, at the widest setting and in
            evaluation mode. It is run once.
        x (Tensor): An input that it takes; on the meta device nothing is
            computed.

    Raises:
        ConfigError: Names a layer that several joints share.
    """
    trace, outputs = traced(module, x)
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, SlimLayer)
    }
    makers = _Makers(trace, layers)
    for name, layer in layers.items():
        layer.slim_unproven = '' if name in trace.inputs else name
    for name in trace.inputs:
        layers[name].slim_inputs = makers.input_layout(name)
        layers[name].slim_outputs = makers.output_layout(name)
    for holder, key in trace.vectors:
        holder.slim_vectors[key] = makers.vector_layout(holder, key)
    axes = tuple(map(trace.output_axis, outputs))
    made = [trace.channels(out, axis) for out, axis in zip(outputs, axes)]
    # A grid of positions, say, has none, and narrows nothing.
    maps = [c for out, c in zip(outputs, made) if trace.all_channels(out)]
    return Joints(
        input_shape=tuple(x.shape),
        outputs=tuple(map(makers.layout, made)),
        axes=axes,
        unknown=tuple(sorted(trace.unknown)),
        alike=makers.alike(),
        whole=bool(maps) and all(map(makers.are_whole, maps)),
    )


class _Place(NamedTuple):
    """Where a channel lies in the layer that makes it."""

    layer: str
    block: int
    rank: int


@dataclass
class _Run:
    """Neighbouring channels: the place of the first one, and how many.

    Each counts as often as it is repeated.
    """

    place: Optional[_Place]
    repeat: int
    size: int

    def goes_on_with(self, place: Optional[_Place], repeat: int) -> bool:
        """Whether the next channel of the same layer is at ``place``."""
        first = self.place
        if first is None or place is None:
            return first is place
        return (
            place.rank == first.rank + self.size // self.repeat
            and place.block == first.block
            and place.layer == first.layer
            and repeat == self.repeat
        )


class _Makers:
    """The layers that make channels, and the parts that these fall into."""

    def __init__(
        self, trace: ChannelTrace, layers: Dict[str, SlimLayer]
    ) -> None:
        self._trace, self._layers = trace, layers
        self._root = trace.sets.root
        self._members = self._together()
        self._blocks: Dict[str, List[List[int]]] = {}
        self._places: Dict[int, _Place] = {}
        self._owners: Dict[int, int] = {}
        self._agree()
        for name, made in trace.made.items():
            self._part(name, list(made))
        for channels in trace.vectors.values():
            self._own(channels)
        self._keep_multiples()

    def input_layout(self, name: str) -> Optional[Layout]:
        """Layout of a layer's input, alike in all of its runs."""
        runs = self._trace.inputs[name]
        found = {self.layout(run) for run in runs}
        if len(found) > 1:
            raise ConfigError(
                f'layer "{name}" is shared by inputs whose channels come from '
                'different layers: no part of its weights fits all'
            )
        return found.pop()

    def output_layout(self, name: str) -> Optional[Layout]:
        """Layout of what a layer makes; None if it narrows as one."""
        made = self._trace.made.get(name)
        if made is None or len(self._blocks[name]) == 1:
            return None
        return self.layout(list(made))

    def layout(self, channels: Optional[List[int]]) -> Optional[Layout]:
        """Layout of channels; None where the active ones are leading."""
        if channels is None:
            return None
        pieces = self._pieces(channels)
        leading = len(pieces) == 1 and pieces[0].skip == 0
        return None if leading or _are_fixed(pieces) else pieces

    def are_whole(self, channels: Optional[List[int]]) -> bool:
        """Whether channels are known to be there at every width."""
        return channels is not None and _are_fixed(self._pieces(channels))

    def vector_layout(self, holder: SlimVectors, key: str) -> Layout:
        """Layout of the channels that a vector lies along."""
        return self._pieces(list(self._trace.vectors[holder, key]))

    def alike(self) -> bool:
        """See :class:`Joints`."""
        trace = self._trace
        if trace.unknown or trace.takes_apart:
            return False
        if any(self._layers[name].input_multiple > 1 for name in trace.inputs):
            return False
        rounded: Dict[int, Any] = {}
        for made in trace.made.values():
            for atom in made:
                place = self._places.get(atom)
                kind = place and (
                    len(trace.made[place.layer]),
                    self._layers[place.layer].slim_rule,
                    len(self._blocks[place.layer][place.block]),
                    place.rank,
                )
                if rounded.setdefault(trace.sets.root(atom), kind) != kind:
                    return False
        return True

    def _pieces(self, channels: List[int]) -> Layout:
        """Layout of channels that are known."""
        runs: List[_Run] = []
        for atom, same in groupby(channels):
            place, repeat = self._places.get(atom), sum(1 for _ in same)
            if runs and runs[-1].goes_on_with(place, repeat):
                runs[-1].size += repeat
            else:
                runs.append(_Run(place, repeat, repeat))
        return tuple(map(self._piece, runs))

    def _piece(self, run: '_Run') -> Piece:
        place = run.place
        if place is None:  # constants, or the network's own input
            return Piece(run.size, run.size, LayerRule(fixed=True), run.size)
        return Piece(
            size=run.size,
            made=len(self._trace.made[place.layer]),
            rule=self._layers[place.layer].slim_rule,
            block=len(self._blocks[place.layer][place.block]),
            skip=place.rank,
            repeat=run.repeat,
        )

    def _together(self) -> Dict[int, frozenset]:
        """The layers whose channels are added to each other, by root."""
        members: Dict[int, set] = {}
        for name, made in self._trace.made.items():
            for atom in made:
                members.setdefault(self._root(atom), set()).add(name)
        return {root: frozenset(names) for root, names in members.items()}

    def _agree(self) -> None:
        """Let a layer without a rule round as what it is added to."""
        # In the order of the trace: one layer may be added to several.
        for names in dict.fromkeys(self._members.values()):
            layers = [self._layers[n] for n in names & self._layers.keys()]
            rules = {layer.slim_rule for layer in layers}
            rules -= {replace(PLAIN, stage=rule.stage) for rule in rules}
            sizes = {len(self._trace.made[name]) for name in names}
            if len(rules) != 1 or len(sizes) != 1:
                continue
            (rule,) = rules
            if not rule.fixed:
                for layer in layers:
                    layer.slim_rule = rule

    def _part(self, name: str, made: List[int]) -> None:
        """Divide what a layer makes into the parts that stay apart."""
        blocks: Dict[Any, List[int]] = {}
        times: Counter = Counter()
        for atom in made:
            root = self._root(atom)
            labels = frozenset(self._trace.sets.labels[root])
            # Of channels that are added to the same one each keeps its share.
            times[root] += 1
            part = labels, self._members[root], times[root]
            blocks.setdefault(part, []).append(atom)
        layer = self._layers.get(name)
        if layer is None:  # the network's input, or a vector
            return
        if layer.slim_rule.fixed:
            blocks = {None: made}
        self._blocks[name] = list(blocks.values())
        for number, block in enumerate(self._blocks[name]):
            for rank, atom in enumerate(block):
                self._places[atom] = _Place(name, number, rank)
                self._owners.setdefault(self._root(atom), atom)
        if len(blocks) > 1:
            sizes = [len(block) for block in blocks.values()]
            layer.slim_rule = _in_parts(name, layer.slim_rule, sizes)

    def _own(self, channels: Sequence[int]) -> None:
        """Place the channels of a vector where those that it meets are."""
        for atom in channels:
            owner = self._owners.get(self._root(atom))
            if owner is not None:
                self._places[atom] = self._places[owner]

    def _keep_multiples(self) -> None:
        """Round what grouped layers get to whole groups.

        And what is added to that, to stay equal.
        """
        for name, runs in self._trace.inputs.items():
            multiple = self._layers[name].input_multiple
            if multiple == 1:
                continue
            roots = {self._root(a) for run in runs for a in run or ()}
            makers = {n for r in roots for n in self._members.get(r, ())}
            for maker in makers & self._layers.keys():
                layer = self._layers[maker]
                sizes = [len(block) for block in self._blocks[maker]]
                layer.slim_rule = _whole(layer.slim_rule, multiple, sizes)


def _are_fixed(pieces: Layout) -> bool:
    return all(piece.rule.fixed for piece in pieces)


_LEAST = 8  # channels that a part is rounded to


def _in_parts(name: str, rule: LayerRule, sizes: List[int]) -> LayerRule:
    """Round so that every part can keep its share."""
    total, shares = sum(sizes), sum(sizes) // gcd(*sizes)
    if len(set(sizes)) == 1 and sizes[0] > _LEAST:
        return replace(rule, ratio=1.0, parts=len(sizes))
    divisor = lcm(_LEAST, shares)
    if total <= _LEAST:  # weights of two branches, say: none is left out
        return replace(rule, fixed=True)
    if divisor >= total:
        raise ConfigError(
            f'layer "{name}" makes {total} channels that are taken apart into '
            f'{len(sizes)} parts, as by repeated shuffles: no narrower one '
            'has as many'
        )
    return replace(rule, ratio=1.0, divisor=divisor)


def _whole(rule: LayerRule, multiple: int, sizes: List[int]) -> LayerRule:
    """Round so that every part has a multiple of ``multiple`` channels."""
    # Parts that are not rounded for themselves share what is.
    total = sum(sizes) // rule.parts
    steps = [multiple * total // gcd(multiple * total, s) for s in sizes]
    step = lcm(*steps)
    if rule.fixed or rule.ratio * rule.divisor % step == 0:
        return rule
    return replace(rule, ratio=1.0, divisor=lcm(rule.divisor, step))
