"""Batch norms folded into convolutions: the same outputs, and which ones."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    convert,
    make_static,
    set_width,
    share_weights,
    use_statistics,
)


class Net(nn.Module):
    """Layers of 32 channels to put together."""

    def __init__(self, forward, norm=nn.BatchNorm2d, **options):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.conv = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.grouped = nn.Conv2d(32, 32, 1, groups=4)
        self.bn, self.bn2 = norm(32, **options), norm(32, **options)
        self.bn3 = norm(32, eps=1e-2, **options)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def chain(net, x):
    """With and without bias, dense, grouped and depthwise."""
    x = net.bn(net.stem(x)).relu_()
    return net.bn3(net.depthwise(net.bn2(net.conv(x)).relu_())).relu_()


def whole_groups(net, x):
    return net.bn2(net.grouped(net.bn(net.stem(x)).relu_()))


def sum_before(net, x):
    x = net.stem(x)
    return net.bn2(net.depthwise(net.bn(x + net.conv(x))))


def residual(net, x):
    x = net.bn(net.stem(x))
    return (x + net.bn2(net.conv(x))).relu_()


def used_elsewhere(net, x):
    x = net.stem(x)
    return net.bn(x) + net.bn2(net.conv(x.relu()))


def pre_activated(net, x):
    x = net.stem(x)
    return x + net.conv(net.bn2(net.depthwise(net.bn(x).relu_())).relu_())


def activated_in_place(net, x):
    return net.bn(net.stem(x).relu_())


def convolution_twice(net, x):
    x = net.stem(x)
    return net.bn2(net.conv(net.bn(net.conv(x)).relu_()))


def shared_norm(net, x):
    x = net.bn(net.stem(x))
    return net.bn(net.conv(x)) + net.bn2(net.depthwise(x))


def norm_again(net, x):
    return net.bn(net.bn(net.stem(x)))


def two_norms(net, x):
    x = net.stem(x)
    return net.bn(x) * net.bn2(x)


def returned(net, x):
    x = net.stem(x)
    return net.bn(x), x


UNTRACKED = dict(track_running_stats=False)


# How layers are put together, options of the batch norms, and how many of
# them are left.
CASES = [
    (chain, {}, 0),
    (chain, dict(affine=False), 0),
    (chain, UNTRACKED, 3),
    (chain, dict(norm=nn.SyncBatchNorm), 0),
    (whole_groups, {}, 0),
    (sum_before, {}, 1),
    (residual, {}, 0),
    (used_elsewhere, {}, 1),
    (pre_activated, {}, 1),
    (activated_in_place, {}, 1),
    (convolution_twice, {}, 2),
    (shared_norm, {}, 1),
    (norm_again, {}, 1),
    (two_norms, {}, 2),
    (returned, {}, 1),
]


def build(forward, **options):
    net = randomise(Net(forward, **options))
    rule = LayerRule(divisor=8)
    convert(net, SlimState(), {'stem': rule, 'grouped': rule})
    return net, torch.randn(2, 3, 7, 7).double()


def randomise(net):
    for layer in net.modules():
        if isinstance(layer, _BatchNorm):
            for name, tensor in layer.state_dict().items():
                if name == 'running_mean':
                    nn.init.normal_(tensor, std=0.3)
                elif tensor.dim():
                    nn.init.uniform_(tensor, 0.5, 1.5)
    return net.double().eval()


def outputs(net, x):
    with torch.no_grad():
        found = net(x)
    return found if isinstance(found, tuple) else (found,)


def norms_run(net, x):
    """Batch norms that are still called."""
    run = set()
    for layer in net.modules():
        if isinstance(layer, _BatchNorm):
            layer.register_forward_hook(lambda m, *_: run.add(m))
    outputs(net, x)
    return len(run)


@pytest.mark.parametrize('width', [1.0, 0.75, 0.25])
@pytest.mark.parametrize('forward, options, left', CASES)
def test_equals_the_sliced_network(forward, options, left, width):
    net, x = build(forward, **options)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    set_width(net, width)
    fused = share_weights(net)
    make_static(fused, x, fuse_bn=True)
    for ours, theirs in zip(outputs(fused, x), outputs(net, x)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        assert theirs.std() > 1e-2  # else nothing is compared
    assert norms_run(fused, x) == left
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize('tracked', [True, False])
def test_with_the_statistics_of_the_subnet(tracked):
    """Those that are given; without, a batch norm may have none to fold."""
    net, x = build(chain, track_running_stats=tracked)
    set_width(net, 0.5)
    statistics = {
        name: (torch.randn(16).double(), torch.rand(16).double() + 0.5)
        for name in ('bn', 'bn2', 'bn3')
    }
    with use_statistics(net, statistics):
        (expected,) = outputs(net, x)
    make_static(net, x, statistics=statistics, fuse_bn=True)
    torch.testing.assert_close(outputs(net, x)[0], expected, rtol=0, atol=1e-9)
    assert norms_run(net, x) == 0


def test_what_is_folded_in():
    """Weight and bias by the formula, in numpy; no batch norm in its place."""
    net, x = build(chain)
    old = {n: t.numpy().copy() for n, t in net.state_dict().items()}
    set_width(net, 0.5)
    make_static(net, x, fuse_bn=True)
    for conv, bn, eps in (('stem', 'bn', 1e-5), ('depthwise', 'bn3', 1e-2)):
        mean, var, weight, bias = (
            old[f'{bn}.{name}'][:16]
            for name in ('running_mean', 'running_var', 'weight', 'bias')
        )
        factor = weight / np.sqrt(var + eps)
        layer = net.get_submodule(conv)
        np.testing.assert_allclose(
            layer.weight.detach(),
            old[f'{conv}.weight'][:16] * factor[:, None, None, None],
        )
        np.testing.assert_allclose(
            layer.bias.detach(),
            bias + (old[f'{conv}.bias'][:16] - mean) * factor,
        )
        assert type(net.get_submodule(bn)) is nn.Identity
        assert layer.weight.is_leaf and type(layer.weight) is nn.Parameter
    keys = {f'{name}.weight' for name in ('stem', 'conv', 'depthwise')}
    keys |= {key.replace('weight', 'bias') for key in keys}
    assert keys == {k for k in net.state_dict() if 'grouped' not in k}


def test_clips_and_linear_layers():
    """3D convolutions are folded into; linear layers are left alone."""
    net = nn.Sequential(
        nn.Conv3d(3, 16, (1, 3, 3)),
        nn.Sequential(nn.BatchNorm3d(16), nn.ReLU(inplace=True)),
        nn.Conv3d(16, 16, 3, groups=16),
        nn.BatchNorm3d(16),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(16, 32),
        nn.BatchNorm1d(32),
    )
    convert(randomise(net), SlimState())
    set_width(net, 0.5)
    x = torch.randn(2, 3, 4, 7, 7).double()
    (expected,) = outputs(net, x)
    make_static(net, x, fuse_bn=True)
    torch.testing.assert_close(outputs(net, x)[0], expected, rtol=0, atol=1e-9)
    assert [m for m in net.modules() if isinstance(m, _BatchNorm)] == [net[7]]


@pytest.mark.parametrize('elsewhere', [True, False])
def test_a_norm_of_two_names(elsewhere):
    net, x = build(lambda net, x: net.get_submodule(name)(net.stem(x)))
    net.part = nn.Module()
    name = 'part.norm' if elsewhere else 'norm'
    (net.part if elsewhere else net).norm = net.bn
    (expected,) = outputs(net, x)
    make_static(net, x, fuse_bn=True)
    torch.testing.assert_close(outputs(net, x)[0], expected, rtol=0, atol=1e-9)
