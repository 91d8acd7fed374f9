"""How long a switch of subnets takes in each mode, and what it keeps."""

from statistics import median
from typing import Any, Dict

from latency_networks import Subject
from latency_timing import clock
from torch import nn

from mutualnet_mm.deploy.switchable import SwitchableNetwork
from mutualnet_mm.models import static_model

_SWITCHES = 50  # back and forth, timed as one: the clock takes as long as one
_TIMES = 5  # that a network is made


def own_bytes(net: nn.Module, origin: nn.Module) -> int:
    """Count bytes of parameters and buffers that ``origin`` does not hold."""

    def storages(module: nn.Module) -> dict:
        tensors = [*module.parameters(), *module.buffers()]
        found = [tensor.untyped_storage() for tensor in tensors]
        return {storage.data_ptr(): storage.nbytes() for storage in found}

    shared = storages(origin)
    return sum(
        size for key, size in storages(net).items() if key not in shared
    )


def measure_switching(subject: Subject, repeats: int) -> dict:
    """Time switches between the full and the smallest subnet, per mode."""
    net = SwitchableNetwork(subject.model, subject.bank)
    space = subject.model.space
    ends = (space.smallest, space.full)

    def microseconds() -> float:
        """Of one switch, the median over rounds of many."""

        def switch() -> None:
            for subnet in ends * _SWITCHES:
                net.use(subnet)

        times = [clock(switch) for _ in range(repeats)]
        return 1e6 * median(times) / (2 * _SWITCHES)

    row: Dict[str, Any] = dict(
        weights_bytes=own_bytes(subject.model, nn.Module()),
        statistics_bytes=sum(
            tensor.nbytes
            for pair in net.statistics(space.smallest).values()
            for tensor in pair
        ),
        sliced_us=microseconds(),
        sliced_bytes=own_bytes(net.model, subject.model),
        made={},
    )
    for subnet in ends:
        net.use(subnet)
        times = []
        for _ in range(_TIMES):  # in a new cache each time, so that it is made
            times.append(clock(lambda: net.make_static(net.current)))
            net.slice()
        static = static_model(
            subject.model, subnet, net.statistics(subnet), fuse_bn=True
        )
        row['made'][str(subnet)] = dict(
            ms=1e3 * median(times), bytes=own_bytes(static, subject.model)
        )
    net.make_static(ends)
    row['kept_us'] = microseconds()
    return row
