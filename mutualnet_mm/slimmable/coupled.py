# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Channels of equal standing, whose order is a network's own choice.

Put into another order, together with all that is coupled to them, they give
the same network. One recorded pass (:mod:`.channel_trace`) tells which layers
make them and which take them.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from math import lcm
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Set, Tuple

from torch import Tensor, nn

from .channel_trace import ChannelTrace
from .heads import SlimHeads
from .slim_layer import SlimLayer


@dataclass
class Coupled:
    """Channels that may take each other's place.

    Args:
        layers (tuple[str]): The layers that make them: several where they
            are added to each other, or multiplied by a gate.
        roots (list[int]): What stands for each channel, see
            :class:`~.channel_sets.ChannelSets`, in the order of the first
            layer.
        unit (int): Neighbours that have to stay together, and in order, as in
            groups of a convolution. Defaults to 1.
        stays (str): Why their order has to stay; empty if it need not.
            Defaults to empty.
    """

    layers: Tuple[str, ...]
    roots: List[int]
    unit: int = 1
    stays: str = ''


Places = List[int]
"""For each place of a row of channels, the old place of what it gets."""


class Couplings:
    """All coupled channels of a network.

    Args:
        net (nn.Module): That was traced.
        trace (ChannelTrace): Of one pass at the widest setting.
        outputs (list[Tensor]): What the pass returned.

    Attributes:
        groups (list[Coupled]): Of layers that narrow, in the order in which
            these run.
    """

    def __init__(
        self, net: nn.Module, trace: ChannelTrace, outputs: List[Tensor]
    ) -> None:
        self._trace, self._root = trace, trace.sets.root
        self._modules: Dict[str, Any] = dict(net.named_modules())
        self._layers = {
            name: module
            for name, module in self._modules.items()
            if isinstance(module, SlimLayer)
        }
        self._slots: Dict[int, Tuple[str, int]] = {}
        self._atoms: Dict[Tuple[int, str, int], int] = {}
        self._members: Dict[int, List[int]] = defaultdict(list)
        self._number()
        self.groups = self._grouped()
        self._of_root = {
            root: group for group in self.groups for root in group.roots
        }
        self._keep(outputs)

    # ---- What a new order does to a row of channels

    def images(self, order: Mapping[int, int]) -> Dict[int, int]:
        """The channel that takes the place of each one.

        Args:
            order (dict): By the root of a channel that is moved, the root of
                the one that comes to its place.
        """
        return {
            atom: self._atoms[(order[self._root(atom)], *slot)]
            for atom, slot in self._slots.items()
            if self._root(atom) in order
        }

    def made_places(self, name: str, images: Mapping[int, int]) -> Places:
        """Where the channels come from that a layer or vector makes."""
        return places(self._trace.made[name], images)

    def input_places(self, name: str, images: Mapping[int, int]) -> Places:
        """Where the channels come from that a layer takes."""
        for run in self._trace.inputs[name]:
            if run is not None:  # all are alike, see ``_keep_shared``
                return places(run, images)
        return []

    def of_channels(self, channels: Iterable[int]) -> List[int]:
        """The root of each channel of a row."""
        return [self._root(atom) for atom in channels]

    # ---- Which channels are of equal standing

    def _number(self) -> None:
        """Tell the channels of one root apart that one layer makes."""
        for name, made in self._trace.made.items():
            times: Counter = Counter()
            for atom in made:
                root = self._root(atom)
                self._slots[atom] = name, times[root]
                self._atoms[root, name, times[root]] = atom
                self._members[root].append(atom)
                times[root] += 1

    def _grouped(self) -> List[Coupled]:
        """Group roots that the same layers make, in the same parts."""
        alike: Dict[Any, List[int]] = {}
        labels = self._trace.sets.labels
        for root, atoms in self._members.items():
            slots = tuple(self._slots[atom] for atom in atoms)
            key = frozenset(labels[root]), slots
            alike.setdefault(key, []).append(root)
        groups = []
        for (_, slots), roots in alike.items():
            names = dict.fromkeys(name for name, _ in slots)
            layers = tuple(name for name in names if name in self._layers)
            rules = [self._layers[name].slim_rule for name in layers]
            if layers and not any(rule.fixed for rule in rules):
                groups.append(Coupled(layers, roots))
        return groups

    def _keep(self, outputs: List[Tensor]) -> None:
        """Find the channels whose order has to stay."""
        trace = self._trace
        self._stay(trace.made.get('', ()), 'they are added to the input')
        for out in outputs:
            self._stay(
                trace.all_channels(out), 'they leave the network as they are'
            )
        self._stay(
            trace.mixed,
            'an operator that is no layer computes with several of them',
        )
        for name in self._layers:
            if name in trace.inputs:
                self._keep_of_layer(name)
        for group in self.groups:
            if not self._is_in_order(group):
                group.stays = 'layers that make them have them in other orders'
        self._keep_tied()
        for name in self._layers:
            if name in trace.inputs:
                self._keep_units(name)
        while any(map(self._keep_shared, trace.inputs)):
            pass

    def _stay(self, channels: Iterable[int], reason: str) -> None:
        for root in set(self.of_channels(channels)):
            group = self._of_root.get(root)
            if group is not None and not group.stays:
                group.stays = reason

    def _keep_of_layer(self, name: str) -> None:
        """Keep what a layer takes or makes in a way that is not known."""
        trace, layer = self._trace, self._layers[name]
        outer = next(
            (
                path
                for path in _above(name)
                if isinstance(self._modules[path], (SlimLayer, SlimHeads))
            ),
            None,
        )
        if outer is not None or layer.slim_rule.heads:
            self._stay(
                trace.made.get(name, ()),
                'they are of the inside of a layer, such as heads',
            )
        self._stay(
            trace.astray.get(name, ()),
            f'layer "{name}" takes them along another axis',
        )
        for run in trace.inputs[name]:
            if run is None and outer in self._layers:
                for channels in trace.inputs[outer]:
                    self._stay(
                        channels or (), f'layer "{outer}" has layers inside'
                    )
            if run is not None and layer.parts > 1:
                self._stay(
                    run, 'groups of a layer that takes them narrow each'
                )
            if run is not None:
                self._keep_parts(name, run)

    def _keep_parts(self, name: str, run: Sequence[int]) -> None:
        """Keep channels of which a layer takes some only."""
        found: Dict[int, Counter] = defaultdict(Counter)
        for atom in run:
            found[self._root(atom)][self._slots.get(atom)] += 1
        for group in self._in(run):
            first = found.get(group.roots[0])
            if any(found.get(root) != first for root in group.roots):
                self._stay(
                    group.roots, f'layer "{name}" takes only some of them'
                )

    def _in(self, channels: Iterable[int]) -> List[Coupled]:
        """The groups that channels are of, each one once."""
        found = {
            id(group): group
            for group in map(self._of_root.get, self.of_channels(channels))
            if group is not None
        }
        return list(found.values())

    def _is_in_order(self, group: Coupled) -> bool:
        rows: Dict[Tuple[str, int], List[int]] = defaultdict(list)
        for root in group.roots:
            for atom in self._members[root]:
                rows[self._slots[atom]].append(atom)
        return all(row == sorted(row) for row in rows.values())

    def _keep_tied(self) -> None:
        """Keep what meets weights that several layers have."""
        owners: Dict[int, Set[str]] = defaultdict(set)
        for name, module in self._modules.items():
            for tensor in _own(module):
                owners[id(tensor)].add(name)
        for name, layer in self._layers.items():
            if any(len(owners[id(tensor)]) > 1 for tensor in _own(layer)):
                reason = f'layer "{name}" shares its weights with others'
                self._stay(self._trace.made.get(name, ()), reason)
                for run in self._trace.inputs.get(name, ()):
                    self._stay(run or (), reason)

    def _keep_units(self, name: str) -> None:
        """Keep whole groups of a convolution or norm together."""
        multiple = self._layers[name].input_multiple
        if multiple == 1:
            return
        for run in self._trace.inputs[name]:
            roots = self.of_channels(run or ())
            for group in self._in(run or ()):
                size = _unit(group.roots, roots, multiple)
                group.unit = lcm(group.unit, size or 1)
                if size == 0 or len(group.roots) % group.unit:
                    self._stay(
                        group.roots,
                        f'they are not whole groups of layer "{name}"',
                    )

    def _keep_shared(self, name: str) -> bool:
        """Keep what a layer takes in one run but not alike in another.

        Returns:
            bool: Whether anything is kept that was not before.
        """
        runs = self._trace.inputs[name]
        rows = [[self._standing(atom) for atom in run or ()] for run in runs]
        if all(row == rows[0] for row in rows):
            return False
        for run in runs:
            self._stay(
                run or (), f'layer "{name}" is shared by other channels'
            )
        return True

    def _standing(self, atom: int) -> Any:
        root = self._root(atom)
        group = self._of_root.get(root)
        if group is None or group.stays:
            return None
        return root, self._slots[atom][1]


def places(row: Sequence[int], images: Mapping[int, int]) -> Places:
    """Where each place of a row gets its channel from.

    Args:
        row (Sequence[int]): Channels by any numbers; one may come up several
            times.
        images (dict): The channel that takes the place of another one; those
            without an entry stay. It has to be in the row as often.
    """
    found: Dict[int, List[int]] = defaultdict(list)
    for place, atom in enumerate(row):
        found[atom].append(place)
    times: Counter = Counter()
    result = []
    for atom in row:
        result.append(found[images.get(atom, atom)][times[atom]])
        times[atom] += 1
    return result


def _unit(members: List[int], row: List[int], multiple: int) -> int:
    """Members that a group of ``multiple`` places in a row is made of.

    Returns:
        int: 0 if they are no neighbours, or not as many in each group.
    """
    ranks = {root: rank for rank, root in enumerate(members)}
    groups = [row[i : i + multiple] for i in range(0, len(row), multiple)]
    mine = [g for g in groups if any(root in ranks for root in g)]
    size, rest = divmod(len(members), len(mine))
    if rest:
        return 0
    for number, group in enumerate(mine):
        found = {ranks.get(root, -1) // size for root in group}
        if found != {number}:
            return 0
    return size


def _above(name: str) -> List[str]:
    """Names of the modules that a module is in."""
    parts = name.split('.')
    return ['.'.join(parts[:i]) for i in range(len(parts))]


def _own(module: nn.Module) -> List[Tensor]:
    tensors = [*module._parameters.values(), *module._buffers.values()]
    return [t for t in tensors if t is not None and t.numel() > 1]
