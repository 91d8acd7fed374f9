"""Several threads, each with a handle and a subnet of its own."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import adaptive_networks as nets
import pytest
import torch

from mutualnet_mm import Subnet
from mutualnet_mm.deploy.switchable import SwitchableNetwork

A, B = nets.KINDS['classifier'][1][:2]
MODES = dict(
    sliced=None,
    static=dict(fuse_bn=False),
    fused=dict(limit=1),  # remade at every switch
)


@pytest.fixture
def network(request):
    return lambda kind='classifier': SwitchableNetwork(
        *nets.network(kind, request)
    )


@pytest.fixture
def eager_threads():
    """Let threads take turns after a few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run(net, batch):
    return nets.outputs(net.predict(*batch))


def storages(model):
    return {
        tensor.untyped_storage().data_ptr()
        for tensor in model.state_dict().values()
        if tensor.numel()
    }


def test_weights_are_shared_and_the_rest_is_own(network):
    net = network('slowfast')
    first, second = nets.KINDS['slowfast'][1][:2]
    net.use(second)
    other = net.handle()
    assert type(other) is type(net) and other.current == net.current
    assert other.model is not net.model
    pairs = zip(net.model.parameters(), other.model.parameters())
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert storages(net.model) == storages(other.model)  # buffers as well
    assert net.model.slim_state is not other.model.slim_state
    other.use(first)
    assert str(net.current) == second and str(other.current) == first
    batch = nets.full_batch(net.model)
    assert not nets.same(run(net, batch), run(other, batch))
    # A change of weights is seen by all.
    before = run(net, batch)
    with torch.no_grad():
        next(other.model.cls_head.parameters()).mul_(-1)
    assert not nets.same(run(net, batch), before)


@pytest.mark.sweep(2)
@pytest.mark.parametrize('kind', sorted(nets.KINDS))
def test_a_handle_needs_no_memory(kind, network):
    net = network(kind)
    before = nets.tensor_memory()
    other = net.handle()
    for subnet in nets.KINDS[kind][1]:
        other.use(subnet)
    after = nets.tensor_memory()
    added = sum(after[key] for key in after.keys() - before.keys())
    weights = sum(p.numel() * 4 for p in net.model.parameters())
    assert added < weights / 1000  # anchors of a detector


def test_a_handle_of_a_handle(network):
    net = network()
    other = net.handle()
    other.use(B)
    third = other.handle()
    assert str(third.current) == B and str(net.current) == A
    other.use(A)
    batch = nets.full_batch(net.model)
    expected = run(net, batch)
    assert nets.same(run(other, batch), expected)
    third.use(A)
    assert nets.same(run(third, batch), expected)


def test_modes_are_own_and_static_subnets_shared(network):
    net = network()
    other = net.handle()
    net.make_static([A, B])
    assert other.static_subnets == [] and len(net.static_subnets) == 2
    third = net.handle()
    third.use(B)
    net.use(B)
    assert third.static_subnets == net.static_subnets
    assert third._stages[0].network is net._stages[0].network
    third.use('0.25x-16')  # later ones too
    assert len(net.static_subnets) == 3
    net.slice()
    assert net.static_subnets == [] and len(third.static_subnets) == 3


@pytest.mark.sweep(5)
@pytest.mark.parametrize('mode', list(MODES))
@pytest.mark.parametrize('kind', sorted(nets.KINDS))
def test_two_threads(kind, mode, network, eager_threads):
    """Each switches to and fro: both run the same subnet now and then."""
    net, subnets = network(kind), nets.KINDS[kind][1][:2]
    if MODES[mode] is not None:
        net.make_static(**MODES[mode])
    batch = nets.full_batch(net.model, number=1)
    expected = {}
    for subnet in subnets:
        net.use(subnet)
        expected[subnet] = run(net, batch)
    handles = [net.handle(), net.handle()]
    rounds = 2 if mode == 'fused' else 12
    start = threading.Barrier(2)

    def work(index):
        handle, wrong = handles[index], 0
        start.wait()
        for i in range(rounds):
            subnet = subnets[(index + i // 2) % 2]
            handle.use(subnet)
            for _ in range(2):
                wrong += not nets.same(run(handle, batch), expected[subnet])
        return wrong

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [0, 0]
    assert str(net.current) == subnets[1]  # of the first one, none's handle


def test_two_budgets_at_the_same_time(network, eager_threads):
    """Two passes are under way at once, of different subnets."""
    net = network()
    batch = nets.full_batch(net.model)
    handles = {name: net.handle() for name in (A, B)}
    meet = threading.Barrier(2, timeout=30)

    def wait(*_):
        meet.wait()

    for name, handle in handles.items():
        handle.use(name)
        # Both are inside of the backbone before either goes on.
        handle.model.backbone.layer2.register_forward_pre_hook(wait)
    with ThreadPoolExecutor(2) as pool:
        jobs = {
            name: pool.submit(run, handle, batch)
            for name, handle in handles.items()
        }
        found = {name: job.result() for name, job in jobs.items()}
    for name in (A, B):
        net.use(name)
        assert nets.same(found[name], run(net, batch))


def test_one_handle_takes_one_call_at_a_time(network):
    net = network()
    batch = nets.full_batch(net.model)
    inside, most = [], []

    def enter(*_):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.005)

    def leave(*_):
        time.sleep(0.005)
        inside.pop()

    net.model.backbone.register_forward_pre_hook(enter)
    net.model.backbone.register_forward_hook(leave)
    expected = {}
    for subnet in (A, B):
        net.use(subnet)
        expected[subnet] = run(net, batch)

    def work(index):
        """Whatever is active at a call, it is one whole subnet."""
        wrong = 0
        for i in range(4):
            net.use((A, B)[(i + index) % 2])
            result = run(net, batch)
            wrong += not any(nets.same(result, e) for e in expected.values())
        return wrong

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(work, range(3))) == 0
    assert len(most) == 2 + 3 * 4 and max(most) == 1


def test_switching_waits_for_the_call_under_way(network):
    net = network()
    batch = nets.full_batch(net.model)
    expected = run(net, batch)
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_):
        inside.set()
        go_on.wait(30)

    net.model.backbone.layer2.register_forward_pre_hook(wait)
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(run, net, batch)
        assert inside.wait(30)
        switch = pool.submit(net.use, B)
        time.sleep(0.05)
        assert not switch.done() and net.current == Subnet.parse(A)
        go_on.set()
        assert nets.same(call.result(), expected)
        assert switch.result() == net.current == Subnet.parse(B)


def test_calls_go_on_while_a_network_is_made(network, monkeypatch):
    net = network()
    batch = nets.full_batch(net.model)
    expected = run(net, batch)
    net.make_static(A, fuse_bn=False)
    inside, go_on = threading.Event(), threading.Event()
    make = net._static._make

    def wait(subnet):
        inside.set()
        assert go_on.wait(30)
        return make(subnet)

    net._static._make = wait
    with ThreadPoolExecutor(1) as pool:
        switch = pool.submit(net.use, B)
        assert inside.wait(30)
        assert nets.same(run(net, batch), expected)
        assert net.current == Subnet.parse(A)
        go_on.set()
        assert switch.result() == net.current == Subnet.parse(B)
