import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutualnet_mm.slimmable import LayerRule, SlimState, active_width, convert
from mutualnet_mm.slimmable.meta import run_on_meta
from mutualnet_mm.slimmable.trace import FoldFinder, watch_channels


def hooks(net):
    return [
        hook
        for module in net.modules()
        for hook in (*module._forward_hooks, *module._forward_pre_hooks)
    ]


class Parts(nn.Module):
    """What every kind of layer runs at, of 32 channels and their halves."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3)
        self.bn = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.video = nn.Conv3d(32, 16, 1)
        self.linear = nn.Linear(16, 64)
        self.bn1d = nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 5)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = self.depthwise(self.bn(self.conv(x)))
        x = self.video(x[:, :, None]).mean((2, 3, 4))
        return self.head(self.bn1d(self.linear(x)))


EXPECTED = dict(
    conv=(3, 16),
    bn=(16, 16),
    depthwise=(16, 16),
    video=(16, 8),
    linear=(8, 32),
    bn1d=(32, 32),
    head=(32, 5),
)


@pytest.mark.parametrize('meta', [True, False], ids=['meta', 'data'])
def test_channels_of_every_kind_of_layer(meta):
    net = Parts().eval()
    convert(net, SlimState(), {'head': LayerRule(fixed=True)})
    x = torch.zeros(2, 3, 9, 9)
    with active_width(net, 0.5), watch_channels(net) as seen:
        run_on_meta(net, x) if meta else net(x)
    names = {layer: name for name, layer in net.named_modules()}
    assert {names[k]: v for k, v in seen.items()} == EXPECTED
    assert not hooks(net)


def test_linear_layers_have_their_channels_last():
    net = nn.Linear(32, 64)
    convert(net, SlimState())
    with active_width(net, 0.5), watch_channels(net) as seen:
        net(torch.zeros(2, 7, 16))
    assert seen == {net: (16, 32)}


@pytest.mark.parametrize('order', [(8, 16), (16, 8)])
def test_the_widest_of_several_runs(order):
    layer = nn.Conv2d(16, 4, 1)
    convert(layer, SlimState(), {'': LayerRule(fixed=True)})
    with active_width(layer, 0.5), watch_channels(layer) as seen:
        for channels in order:
            layer(torch.zeros(1, channels, 2, 2))
    assert seen == {layer: (16, 4)}


class Activated(nn.BatchNorm2d):
    """A batch norm that does more than the stock one."""

    def forward(self, x):
        return super().forward(x).relu()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.bn, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.activated = Activated(4, track_running_stats=False)


def two(net, x):
    return net.bn2(net.other(net.bn(net.conv(x)).relu_())) + x


def pre_activated(net, x):
    return net.other(net.bn2(net.conv(net.bn(x))).relu())


def no_dropout(net, x):
    """In evaluation it hands on its input."""
    return net.bn(F.dropout(net.conv(x), 0.5, net.training))


def sum_before(net, x):
    return net.bn(net.conv(x) + x)


def sum_after(net, x):
    x = net.conv(x)
    return net.bn(x) + x


def concatenated(net, x):
    x = net.conv(x)
    return torch.cat([net.bn(x), x], 1)


def viewed(net, x):
    x = net.conv(x)
    part = x[:, :1]
    return net.bn(x) * part


def activated_in_place(net, x):
    return net.bn(F.relu_(net.conv(x)))


def changed_afterwards(net, x):
    x = net.conv(x)
    y = net.bn(x)
    x.add_(1)
    return y


def convolution_twice(net, x):
    return net.bn(net.conv(x)) + net.bn2(net.conv(x + 1))


def convolution_again(net, x):
    return net.conv(net.bn(net.conv(x)))


def shared_norm(net, x):
    return net.bn(net.conv(x)) + net.bn(net.other(x))


def norm_again(net, x):
    return net.bn(net.bn(net.conv(x)))


def two_norms(net, x):
    x = net.conv(x)
    return net.bn(x) + net.bn2(x)


def linear_before(net, x):
    return net.bn(F.linear(net.conv(x), torch.eye(5).to(x)))


def returned(net, x):
    x = net.conv(x)
    return net.bn(x), {'maps': [x]}


def norm_of_its_own(net, x):
    return net.activated(net.conv(x))


CASES = [
    (two, ['conv bn', 'other bn2']),
    (pre_activated, ['conv bn2']),
    (no_dropout, ['conv bn']),
    (sum_before, []),
    (sum_after, []),
    (concatenated, []),
    (viewed, []),
    (activated_in_place, []),
    (changed_afterwards, []),
    (convolution_twice, []),
    (convolution_again, []),
    (shared_norm, []),
    (norm_again, []),
    (two_norms, []),
    (linear_before, []),
    (returned, []),
    (norm_of_its_own, []),
]


@pytest.mark.parametrize('meta', [True, False], ids=['meta', 'data'])
@pytest.mark.parametrize('forward, expected', CASES)
def test_pairs_that_can_be_folded(forward, expected, meta):
    net = Net().eval()
    convert(net, SlimState(), strict=False)
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad(), FoldFinder(net) as finder:
        if meta:
            outputs = run_on_meta(net, x, forward=forward)
        else:
            outputs = forward(net, x)
    names = {layer: name for name, layer in net.named_modules()}
    pairs = finder.pairs(outputs)
    assert [f'{names[a]} {names[b]}' for a, b in pairs] == expected
    assert not hooks(net)


def test_outputs_are_kept():
    """The identity of a freed one might be given to another tensor."""
    net = Net().eval()
    convert(net, SlimState(), strict=False)
    with torch.no_grad(), FoldFinder(net):
        output = weakref.ref(net.conv(torch.zeros(1, 4, 2, 2)))
        assert output() is not None


@pytest.mark.parametrize('watch', [watch_channels, FoldFinder])
def test_nothing_is_left_behind_by_an_error(watch):
    net = Parts()
    convert(net, SlimState())
    with pytest.raises(ZeroDivisionError), watch(net):
        assert hooks(net)
        raise ZeroDivisionError
    assert not hooks(net)
    assert (torch.ones(2) + 1).tolist() == [2, 2]
