# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Static networks of a few subnets, made once and kept."""

import threading
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterable, List

from torch import nn

from ..errors import check_count
from ..subnet import Subnet


class StaticCache:
    """Keeps the static form of the subnets that were used last.

    Several threads may share one.

    Args:
        make (Callable): Makes the network of a subnet.
        limit (int): Networks to keep; beyond it, the least recently used one
            is dropped.

    Raises:
        UsageError: If ``limit`` is not a whole number from 1.
    """

    def __init__(
        self, make: Callable[[Subnet], nn.Module], limit: int
    ) -> None:
        self.limit = check_count(limit, 'limit')
        self._make = make
        self._made: OrderedDict[Subnet, nn.Module] = OrderedDict()
        self._lock = threading.Lock()  # never held while a network is made
        self._making: Dict[Subnet, threading.Lock] = {}
        self._drops = 0

    @property
    def subnets(self) -> List[Subnet]:
        """Subnets that are kept, the most recently used one last."""
        with self._lock:
            return list(self._made)

    def get(self, subnet: Subnet) -> nn.Module:
        """Return the network of ``subnet``; make it if it is not kept.

        Several threads make a network only once; a thread that wants another
        network does not wait for it.
        """
        with self._lock:
            if subnet in self._made:
                return self._kept(subnet)
            making = self._making.setdefault(subnet, threading.Lock())
        with making:
            while True:
                with self._lock:
                    if subnet in self._made:
                        return self._kept(subnet)
                    drops = self._drops
                net = self._make(subnet)
                with self._lock:
                    if drops != self._drops:
                        continue  # its statistics may have changed
                    self._making.pop(subnet, None)
                    self._made[subnet] = net
                    return self._kept(subnet)

    def _kept(self, subnet: Subnet) -> nn.Module:
        self._made.move_to_end(subnet)
        while len(self._made) > self.limit:
            self._made.popitem(last=False)
        return self._made[subnet]

    def drop(self, subnets: Iterable[Subnet]) -> None:
        """Forget networks whose statistics have changed."""
        with self._lock:
            self._drops += 1
            for subnet in subnets:
                self._made.pop(subnet, None)


def compile_parts(net: nn.Module, networks: int) -> None:
    """Compile backbone and neck in place, at their first call.

    Args:
        net (nn.Module): A static network.
        networks (int): How many of its kind are kept at the same time.
    """
    # Only here: importing it takes seconds.
    import torch._dynamo

    config: Any = torch._dynamo.config
    # Dynamo counts per code object, which all networks of a class share, and
    # runs uncompiled beyond its limit. The default is that of a single one.
    new = hasattr(config, 'recompile_limit')
    name = 'recompile_limit' if new else 'cache_size_limit'
    setattr(config, name, max(getattr(config, name), 8 * networks))
    for part in ('backbone', 'neck'):
        module = getattr(net, part, None)
        if module is not None:
            module.compile()
