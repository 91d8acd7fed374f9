"""Static networks, compiled."""

import shutil

import adaptive_networks as nets
import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import Subnet
from mutualnet_mm.deploy.switchable import SwitchableNetwork

pytestmark = pytest.mark.skipif(
    not hasattr(nn.Module, 'compile'), reason='this torch compiles no modules'
)


@MODELS.register_module(force=True)
class OneLayer(BaseModule):
    """The least that there is to compile."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3, stride=2)
        self.bn = nn.BatchNorm2d(64)

    def forward(self, x):
        return (self.bn(self.conv(x)).relu(),)


@pytest.fixture
def make(enter_scope):
    """Return a network of one layer, with statistics of some subnets."""
    enter_scope('mmpretrain')

    def make(subnets):
        model = MODELS.build(
            dict(
                type='mutualnet_mm.MutualLearning',
                wraps='ImageClassifier',
                mutual=dict(width_range=(0.125, 1.0), resolution=(16, 12)),
                backbone=dict(type='mutualnet_mm.Slimmable', wraps='OneLayer'),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=4, in_channels=64),
            )
        )
        nets.randomise(model).eval()
        bank = {
            subnet: nets.random_statistics(model, Subnet.parse(subnet))
            for subnet in subnets
        }
        return SwitchableNetwork(model, bank)

    return make


@pytest.fixture
def compiled_runs(monkeypatch):
    """Have networks traced, which is quick, and list the runs of graphs."""
    runs = []

    def backend(graph, inputs):
        del inputs

        def run(*args):
            runs.append(graph)
            return graph(*args)

        return run

    stock = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, 'compile', lambda module: stock(module, backend=backend)
    )
    torch._dynamo.reset()
    yield runs
    torch._dynamo.reset()


def run(net, batch):
    return nets.outputs(net.predict(*batch))


def close(a, b):
    return a.keys() == b.keys() and all(
        torch.allclose(a[k].float(), b[k].float(), atol=1e-5) for k in a
    )


def test_backbone_and_neck_are_compiled(make, compiled_runs):
    net = make(['0.5x-12', '0.25x-16'])
    batch = nets.full_batch(net.model)
    net.use('0.5x-12')
    sliced = run(net, batch)
    net.make_static()
    run(net, batch)
    assert compiled_runs == []  # not unless it is asked for
    net.make_static(compile=True)
    for _ in range(2):
        assert close(run(net, batch), sliced)
    assert len(compiled_runs) == 4 and len(set(compiled_runs)) == 2
    net.use('0.25x-16')
    other = run(net, batch)
    assert len(compiled_runs) == 6
    net.slice()
    assert close(run(net, batch), other) and not close(other, sliced)
    assert len(compiled_runs) == 6


def test_more_subnets_than_torch_recompiles(make, compiled_runs):
    """Of one process and one class of backbone."""
    subnets = [f'{width / 8}x-12' for width in range(1, 8)]
    subnets += ['1.0x-12', '1.0x-16', '0.5x-16']
    net = make(subnets)
    batch = nets.full_batch(net.model)
    net.make_static(limit=10, compile=True)
    for subnet in subnets:
        net.use(subnet)
        compiled_runs.clear()
        run(net, batch)
        assert len(compiled_runs) == 2, subnet


@pytest.mark.slow
# About 15 seconds, most of it in the compiler.
@pytest.mark.skipif(not shutil.which('g++'), reason='no C++ compiler')
def test_compiled_for_the_cpu(make):
    net = make(['0.5x-12'])
    batch = nets.full_batch(net.model)
    net.use('0.5x-12')
    sliced = run(net, batch)
    net.make_static(compile=True)
    assert close(run(net, batch), sliced)
    assert net._stages[0].network.backbone._compiled_call_impl is not None
