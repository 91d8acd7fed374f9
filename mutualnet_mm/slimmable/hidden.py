# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Hidden layers: those that other layers alone take the channels of.

In networks of residual blocks that add to one stream, the stream can keep its
channels while the blocks narrow inside: the first layer of an MLP, the
squeezed one of channel attention, the middle ones of a bottleneck.
"""

from collections import defaultdict
from typing import DefaultDict, List, Optional, Set

from torch import Tensor, nn

from .channel_trace import traced
from .slim_layer import SlimLayer


def hidden_layers(module: nn.Module, x: Tensor) -> List[str]:
    """Find the layers that can narrow while all else stays whole.

    What such a layer makes goes to other layers alone: through activations,
    dropout, norms that follow, convolutions of each channel, concatenations
    and the like. It is not added to what others make, not returned, and
    nothing but a layer computes with several of its channels, or with numbers
    that the network holds for each of them.

    Args:
        module (nn.Module): With slim layers, at the widest setting and in
            evaluation mode. It is run once.
        x (Tensor): An input that it takes; on the meta device nothing is
            computed.

    Returns:
        list: Names of the layers, in the order in which they run.
    """
    trace, outputs = traced(module, x)
    seen = set(trace.mixed)
    for out in outputs:
        seen |= trace.all_channels(out)
    whole = {trace.sets.root(atom) for atom in seen}
    taken = {
        trace.sets.root(atom)
        for runs in trace.inputs.values()
        for run in runs
        for atom in run or ()
    }
    makers: DefaultDict[int, Set[str]] = defaultdict(set)
    for name, made in trace.made.items():
        for atom in made:
            makers[trace.sets.root(atom)].add(name)
    layers = dict(module.named_modules())
    return [
        name
        for name, made in trace.made.items()
        if name
        and _is_dense(layers.get(name))
        and {trace.sets.root(atom) for atom in made} <= taken - whole
        and all(makers[trace.sets.root(atom)] == {name} for atom in made)
    ]


def _is_dense(layer: Optional[nn.Module]) -> bool:
    # Groups would follow what comes in, which is whole.
    return isinstance(layer, SlimLayer) and getattr(layer, 'groups', 1) == 1
