# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Channels that are kept together, and parts that are kept apart."""

from collections import defaultdict
from typing import DefaultDict, Dict, List, Optional, Set, Tuple

from .channel_maps import NOTHING


class ChannelSets:
    """Channels, by any numbers, that are added to each other.

    Attributes:
        labels (dict): By the root of a channel, which parts of tensors that
            were split it lies in.
    """

    def __init__(self) -> None:
        self.labels: DefaultDict[int, Set[Tuple[int, int]]]
        self.labels = defaultdict(set)
        self._splits = 0
        self._parents: Dict[int, int] = {}

    def root(self, channel: int) -> int:
        """One channel that stands for all that were added to each other."""
        while channel in self._parents:
            channel = self._parents[channel]
        return channel

    def unite(self, a: int, b: int) -> None:
        """Note that two channels are added to each other."""
        a, b = self.root(a), self.root(b)
        if a != b:
            self._parents[b] = a
            self.labels[a] |= self.labels.pop(b, set())

    def label_parts(self, channels: Optional[List[int]], parts: int) -> None:
        """Note that channels are equal parts."""
        if parts == 1 or channels is None:
            return
        size = len(channels) // parts
        starts = range(0, len(channels), size)
        self.label([{*channels[i : i + size]} - {NOTHING} for i in starts])

    def label(self, parts: List[Set[int]]) -> None:
        """Note that channels are taken apart."""
        self._splits += bool(parts)
        # Many parts may have the same channels: the tokens of a sequence.
        unlike = {frozenset(map(self.root, part)) for part in parts}
        for number, roots in enumerate(unlike):
            for root in roots:
                self.labels[root].add((self._splits, number))
