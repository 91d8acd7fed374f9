"""The latency controller around the calls of a model, on a made-up clock."""

from dataclasses import replace
from types import SimpleNamespace

import adaptive_networks as nets
import pytest
import torch

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import AdaptiveModel, LatencyController
from mutualnet_mm.query_table import Latency, QueryTable, TableEntry

pytest.importorskip('mmpretrain')
COSTS = {'1.0x-32': 40, '0.75x-32': 20, '0.5x-24': 10, '0.25x-16': 5}
FRAME = torch.zeros(1, 3, 32, 32)


class Device:
    """Takes as long for a frame as its load and the subnet say."""

    def __init__(self):
        self.load = 1.0  # milliseconds for each MAC
        self.reading = 0.0  # milliseconds for a frame
        self.seconds = 0.0

    def now(self):
        return self.seconds


@pytest.fixture
def device(monkeypatch):
    device = Device()
    monkeypatch.setattr(
        'mutualnet_mm.deploy.adaptive_model.time',
        SimpleNamespace(perf_counter=device.now),
    )
    return device


@pytest.fixture
def net(request, device, monkeypatch):
    file = nets.adaptive_file('classifier', request)
    entries = [
        TableEntry(Subnet.parse(subnet), cost, 1, {'accuracy/top1': cost})
        for subnet, cost in COSTS.items()
    ]
    # Worse than the full network for the same.
    entries[1] = replace(entries[1], metrics={'accuracy/top1': 1.0}, macs=40)
    table = QueryTable(
        entries, 'accuracy/top1', 'classification', Subnet(1.0, 32)
    )
    net = AdaptiveModel(replace(file, table=table))
    predict, prepare = net.predict, net.prepare

    def slow_predict(*batch):
        device.seconds += device.load * COSTS[str(net.current)] / 1000
        return predict(*batch)

    def slow_prepare(*images):
        device.seconds += device.reading / 1000
        return prepare(*images)

    monkeypatch.setattr(net, 'predict', slow_predict)
    monkeypatch.setattr(net, 'prepare', slow_prepare)
    return net


def frames(net, number):
    for _ in range(number):
        assert len(net(FRAME)) == 1
    return str(net.current)


def test_down_under_load_and_up_again(net, device):
    with net.latency_controller(target_ms=50) as controller:
        assert isinstance(controller, LatencyController)
        assert [str(s) for s in controller.subnets] == [
            *('0.25x-16', '0.5x-24', '1.0x-32'),
        ]
        assert frames(net, 20) == '1.0x-32'  # 40 ms
        device.load = 2.0
        assert frames(net, 2) == '1.0x-32'  # two late ones are no trend
        assert frames(net, 18) == '0.5x-24'  # 80 ms and 20 ms
        device.load = 6.0
        assert frames(net, 20) == '0.25x-16'  # 60 ms and 30 ms
        device.load = 1.0
        assert frames(net, 60) == '1.0x-32'
        assert controller.current == net.current
        device.load = 99.0
        assert frames(net, 20) == '0.25x-16'
    assert str(net.current) == '1.0x-32'
    assert frames(net, 20) == '1.0x-32'  # not watched any more


def test_what_counts_is_the_whole_call(net, device):
    device.reading = 45.0
    synchronized = []
    net.synchronize = lambda: synchronized.append(device.seconds)
    with net.latency_controller(target_ms=70):
        frames(net, 1)
        assert synchronized == [pytest.approx(0.085)]  # waited for it
        assert frames(net, 19) == '0.5x-24'  # 85 ms and 55 ms
    frames(net, 1)
    assert len(synchronized) == 20


def test_batches_of_a_list_are_judged_one_by_one(net, device):
    device.load = 2.0
    images = [FRAME[0].permute(1, 2, 0).byte().numpy()] * 6
    with net.latency_controller(target_ms=50):
        assert len(net(images)) == 6
        assert str(net.current) == '0.5x-24'
    with net.latency_controller(target_ms=50):
        net(images, batch_size=6)
        assert str(net.current) == '1.0x-32'


def test_the_rest_of_a_list_is_not_judged(net, device):
    """Being shorter, it says nothing about the deadline."""
    images = [FRAME[0].permute(1, 2, 0).byte().numpy()] * 5
    with net.latency_controller(target_ms=50) as controller:
        for _ in range(2):
            assert len(net(images, batch_size=2)) == 5
        assert len(controller._recent) == 4  # of six batches
        assert len(net(images[:1], batch_size=2)) == 1
        assert len(controller._recent) == 5  # all that there is
    assert str(net.current) == '1.0x-32'


def test_files_that_cannot_be_read_are_not_judged(net, device, tmp_path):
    """They take no time, whatever the load."""
    device.load = 2.0
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'no picture')
    with net.latency_controller(target_ms=50) as controller:
        frames(net, 20)
        assert str(net.current) == '0.5x-24'
        seen = list(controller._recent)
        for _ in range(60):
            assert net([broken], skip_unreadable=True) == [None]
        assert str(net.current) == '0.5x-24'
        assert list(controller._recent) == seen


def test_only_the_controller_chooses(net, device):
    other = net.handle()
    with net.latency_controller(target_ms=50):
        for choose in (
            lambda: net.use('0.5x-24'),
            lambda: net.set_budget(macs=15),
        ):
            with pytest.raises(UsageError, match='0.5x-24 cannot be chosen'):
                choose()
            assert str(net.current) == '1.0x-32'
        net.handle().use('0.5x-24')
        other.use('0.5x-24')
        device.load = 2.0
        assert frames(net, 20) == '0.5x-24'  # by the controller
    net.use('0.25x-16')
    assert str(net.current) == '0.25x-16'


def test_the_subnet_of_before_comes_back(net, device):
    net.use('0.75x-32')  # in no Pareto set
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), net.latency_controller(50) as controller:
            assert str(net.current) == '1.0x-32'
            device.load = 99.0
            assert frames(net, 20) == '0.25x-16'
            raise error
        assert str(net.current) == '0.75x-32'
        assert frames(net, 20) == '0.75x-32'
        assert str(controller.current) == '0.25x-16'
    net.use('0.5x-24')
    with net.latency_controller(50):
        assert str(net.current) == '0.5x-24'  # begins where it stands


def test_a_handle_made_meanwhile_is_not_watched(net):
    with net.latency_controller(50):
        other = net.handle()
        assert other._controller is None and net._controller is not None


def test_ladder_of_a_device(net):
    """Where latencies say something else than MACs do."""
    latencies = {
        'a': dict(zip(COSTS, (4.0, 3.0, 2.0, 1.0))),
        'b': dict(zip(COSTS, (1.0, 3.0, 2.0, 4.0))),
    }
    table = net.table
    for name, median in latencies.items():
        table = table.with_latencies(
            name,
            {Subnet.parse(s): Latency(ms, ms) for s, ms in median.items()},
        )
    net.file = replace(net.file, table=table)
    with net.latency_controller(50, device='a') as controller:
        assert controller.costs == [1.0, 2.0, 4.0]
    with net.latency_controller(50, device='b') as controller:
        assert controller.subnets == [Subnet(1.0, 32)]
    for device in (None, 'c'):
        with pytest.raises(UsageError, match="'a' or 'b'"):
            net.latency_controller(50, device).__enter__()


@pytest.mark.parametrize('target', [0, -1, float('nan'), '20', None])
def test_no_deadline(net, target):
    net.use('0.75x-32')
    with pytest.raises(UsageError, match='target_ms=.*positive number'):
        net.latency_controller(target).__enter__()
    assert str(net.current) == '0.75x-32' and net._controller is None


def test_one_inside_of_another(net, device):
    with net.latency_controller(50):
        with net.latency_controller(50):
            frames(net, 1)
        device.load = 99.0
        assert frames(net, 20) == '0.25x-16'
