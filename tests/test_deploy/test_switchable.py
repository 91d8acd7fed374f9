"""Switching between subnets, in every mode and task."""

import gc
import weakref

import adaptive_networks as nets
import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.deploy.switchable import SwitchableNetwork

A, B, C, D = nets.KINDS['classifier'][1]
MODES = dict(
    sliced=None,
    static=dict(fuse_bn=False),
    fused=dict(fuse_bn=True),
)


@pytest.fixture
def network(request):
    """Return a switchable network, with a bank of its own."""
    return lambda kind='classifier': SwitchableNetwork(
        *nets.network(kind, request)
    )


def run(net, batch):
    return nets.outputs(net.predict(*batch))


@pytest.mark.sweep(5)
@pytest.mark.parametrize('mode', list(MODES))
@pytest.mark.parametrize('kind', sorted(nets.KINDS))
def test_there_and_back_again(kind, mode, request):
    origin, bank = nets.network(kind, request)
    net, batch = SwitchableNetwork(origin, bank), nets.full_batch(origin)
    if MODES[mode] is not None:
        net.make_static(**MODES[mode])
    first, second = nets.KINDS[kind][1][:2]
    found = []
    for subnet in (first, second, first, second):
        assert net.use(subnet) == net.current == Subnet.parse(subnet)
        found.append(run(net, batch))
    assert nets.same(found[0], found[2]) and nets.same(found[1], found[3])
    assert not nets.same(found[0], found[1])
    for subnet, result in zip((first, second), found):
        expected = nets.loop_outputs(origin, subnet, bank.get(subnet), *batch)
        if mode != 'fused':
            assert nets.same(result, expected)
            continue
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            if value.is_floating_point():  # boxes are in pixels, up to 80
                torch.testing.assert_close(
                    result[name], value, rtol=1e-4, atol=1e-5
                )


@pytest.mark.parametrize('mode', list(MODES))
def test_a_switch_touches_no_tensor(network, mode):
    net = network()
    if MODES[mode] is not None:
        net.make_static([A, B], **MODES[mode])
    before = nets.tensor_memory()
    with nets.CountOperations() as counted:
        for subnet in (B, A, B):
            net.use(subnet)
    assert counted.names == [] and nets.tensor_memory() == before


def batch_norms(net):
    return sum(isinstance(m, _BatchNorm) for m in net.modules())


def test_what_is_static(network):
    """Its own contiguous weights, of the size that stock layers say."""
    net = network()
    net.use(B)
    net.make_static(fuse_bn=False)
    plain = net._stages[0].network
    assert batch_norms(plain) == 20
    net.make_static()
    fused = net._stages[0].network
    assert batch_norms(fused) == 0
    shared = {p.data_ptr() for p in net.model.parameters()}
    for made in (plain, fused):
        for name, layer in made.backbone.named_modules():
            if isinstance(layer, nn.Conv2d):
                assert type(layer) is nn.Conv2d, name
                assert layer.weight.is_contiguous()
                assert layer.weight.data_ptr() not in shared
                assert layer.weight.shape[0] == layer.out_channels <= 64
                storage = layer.weight.untyped_storage().nbytes()
                assert storage == 4 * layer.weight.numel()


def test_the_least_recently_used_is_dropped_and_freed(network):
    net = network()
    batch = nets.full_batch(net.model)
    net.make_static([A, B], limit=2)
    assert net.static_subnets == [Subnet.parse(s) for s in (B, A)]
    net.use(A)
    before = run(net, batch)
    in_use, other = net._stages[0].network, net._static.get(Subnet.parse(B))
    gc.collect()
    gc.disable()  # memory comes back without the garbage collector
    try:
        freed = weakref.ref(other), weakref.ref(other.backbone.conv1.weight)
        del other
        net._static.get(Subnet.parse(C))
        assert net.static_subnets == [Subnet.parse(s) for s in (B, C)]
        # Dropped by another handle, say: who runs it goes on.
        assert net._stages[0].network is in_use
        assert nets.same(run(net, batch), before)
        net.use(D)
        assert freed[0]() is None and freed[1]() is None
    finally:
        gc.enable()
    assert net.static_subnets == [Subnet.parse(s) for s in (C, D)]
    net.use(A)
    assert net._stages[0].network is not in_use
    assert nets.same(run(net, batch), before)


def test_slice_lets_go(network):
    net = network()
    batch = nets.full_batch(net.model)
    net.use(B)
    sliced = run(net, batch)
    net.make_static([A, B, C], limit=3)
    kept = [weakref.ref(made) for made in net._static._made.values()]
    assert len(kept) == 3
    assert not nets.same(run(net, batch), sliced)  # folded
    net.slice()
    assert net.current == Subnet.parse(B) and net.static_subnets == []
    assert [ref() for ref in kept] == [None] * 3
    assert nets.same(run(net, batch), sliced)
    net.slice()  # once more
    assert nets.same(run(net, batch), sliced)


@pytest.mark.sweep(7)
@pytest.mark.parametrize('static', [False, True])
@pytest.mark.parametrize(
    'do, message',
    [
        (lambda n: n.use('0.1x-32'), r'outside of the trained \[0.25, 1.0\]'),
        (lambda n: n.use('0.5x-48'), 'above the full 32'),
        (lambda n: n.use('0.5x-24-3'), 'leave out its frames'),
        (lambda n: n.use('half'), "'half' is not understood"),
        (lambda n: n.use('0.6x-24'), r"no.*call calibrate\(.*'0.6x-24'\) f"),
        (lambda n: n.use('0.6x-24'), 'table with --subnet 0.6x-24'),
        (lambda n: n.make_static([A, '0.1x-32']), 'outside of the trained'),
        (lambda n: n.make_static([A, '0.6x-24']), 'no batch-norm statistics'),
        (lambda n: n.make_static([A, B, C], limit=2), '3 subnets .* limit=2'),
        (lambda n: n.make_static(limit=0), 'limit=0: use a whole number'),
    ],
)
def test_an_error_changes_nothing(network, static, do, message):
    net = network()
    batch = nets.full_batch(net.model)
    net.use(B)
    if static:
        net.make_static([C, B])
    before, running = run(net, batch), net._stages[0].network
    with pytest.raises(UsageError, match=message) as caught:
        do(net)
    assert '\n' not in str(caught.value)
    assert net.current == Subnet.parse(B) and net._stages[0].network is running
    assert nets.same(run(net, batch), before)
    kept = [Subnet.parse(s) for s in (C, B)] if static else []
    assert net.static_subnets == kept
    net.use(A)
    assert not nets.same(run(net, batch), before)


def test_a_network_trained_alone(request):
    """Its own statistics are the running ones; all others need some."""
    cfg = nets.config('classifier', request)
    cfg.model.mutual.single_subnet = B
    origin = nets.randomise(nets.build_model(cfg)).eval()
    net, batch = SwitchableNetwork(origin, {}), nets.full_batch(origin)
    expected = nets.loop_outputs(origin, B, None, *batch)
    assert str(net.current) == B and nets.same(run(net, batch), expected)
    with pytest.raises(UsageError, match='no batch-norm statistics'):
        net.use(A)
    net.make_static(fuse_bn=False)
    assert str(net.use(B)) == B and nets.same(run(net, batch), expected)


def test_all_that_is_named_is_kept(network):
    net = network()
    net.make_static([B, C], limit=2)
    assert set(net.static_subnets) == {Subnet.parse(s) for s in (B, C)}


def test_a_network_without_batch_norms(enter_scope):
    """Every subnet of the trained range is ready."""
    enter_scope('mmpretrain')
    origin = MODELS.build(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=dict(resolution=(64, 48)),
            backbone=dict(type='mutualnet_mm.SlimmableVGG', depth=11),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=4, in_channels=512),
        )
    ).eval()
    net, batch = SwitchableNetwork(origin, {}), nets.full_batch(origin)
    for mode in ('sliced', 'static'):
        for subnet in ('1.0x-64', '0.37x-50', '0.25x-48'):
            assert str(net.use(subnet)) == subnet
            expected = nets.loop_outputs(origin, subnet, None, *batch)
            assert nets.same(run(net, batch), expected), (mode, subnet)
        net.make_static(limit=1)
    with pytest.raises(UsageError, match='outside of the trained'):
        net.use('0.2x-48')


def test_predictions_are_put_into_new_samples(network):
    net = network()
    inputs, samples = nets.full_batch(net.model)
    copy = inputs.clone()
    found = net.predict(inputs, samples)
    assert all('pred_score' in sample for sample in found)
    assert not any('pred_score' in sample for sample in samples)
    assert torch.equal(inputs, copy)
    assert not found[0].pred_score.requires_grad


def test_every_device_is_waited_for(network, monkeypatch):
    """Others than CUDA run behind as well; a CPU does not."""
    accelerator = pytest.importorskip('torch.accelerator')
    net, waited = network(), []
    monkeypatch.setattr(accelerator, 'synchronize', waited.append)
    net.synchronize()
    for name in ('cuda:1', 'mps', 'xpu:0'):
        device = torch.device(name)
        monkeypatch.setattr(type(net), 'device', device)
        net.synchronize()
        assert waited.pop() == device and waited == []
