"""Narrowed networks equal narrow ones of stock layers, filled by copying."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    active_width,
    convert,
    make_static,
    set_width,
    share_weights,
    use_statistics,
)
from mutualnet_mm.slimmable.joints import find_joints

FIXED = LayerRule(fixed=True)


def images(narrow):
    """Dense and depthwise, with and without bias and affine parameters."""
    a, b = narrow(32), narrow(64)
    return nn.Sequential(
        nn.Conv2d(3, a, 3, 2, 1, bias=False),
        nn.BatchNorm2d(a, eps=1e-3),
        nn.ReLU(inplace=True),
        nn.Conv2d(a, a, 3, 1, 1, groups=a),
        nn.BatchNorm2d(a, affine=False),
        nn.Conv2d(a, b, 1, padding_mode='reflect'),
        nn.SyncBatchNorm(b),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(b, b, bias=False),
        nn.BatchNorm1d(b),
        nn.Linear(b, 10),
    )


def groups(narrow):
    """Groups of 16 channels, of which whole ones are dropped."""
    a, b = narrow(64), narrow(128)
    grouped = nn.Conv2d(a, b, 3, groups=a // 16, dilation=2)
    return nn.Sequential(nn.Conv2d(3, a, 3), grouped, nn.BatchNorm2d(b))


def video(narrow):
    a, b = narrow(32), narrow(64)
    return nn.Sequential(
        nn.Conv3d(3, a, (1, 3, 3), padding=(0, 1, 1)),
        nn.BatchNorm3d(a, momentum=None),
        nn.Conv3d(a, a, (3, 1, 1), groups=a, bias=False),
        nn.BatchNorm3d(a),
        nn.Conv3d(a, b, 1, (2, 2, 2)),
    )


class TwoBranches(nn.Module):
    """The second branch stays whole and comes in at the tail."""

    def __init__(self, narrow):
        super().__init__()
        self.slow = nn.Conv2d(3, narrow(32), 3)
        self.fast = nn.Conv2d(3, 4, 3)
        self.fused = nn.Conv2d(narrow(32) + 4, narrow(64), 1)
        self.bn = nn.BatchNorm2d(narrow(64))

    def forward(self, x):
        return self.bn(self.fused(torch.cat([self.slow(x), self.fast(x)], 1)))


WHOLE = LayerRule(divisor=16)
# Network, rules, shape of an input.
CASES = {
    'images': (images, {'11': FIXED}, (2, 3, 9, 9)),
    'groups': (groups, {'0': WHOLE, '1': WHOLE}, (2, 3, 9, 9)),
    'video': (video, {}, (2, 3, 5, 9, 9)),
    'two-branches': (TwoBranches, {'fast': FIXED}, (2, 3, 7, 7)),
}
# Channels are multiples of 32 and need no rounding.
WIDTHS = (1.0, 0.75, 0.5, 0.25)


def randomise(net):
    for layer in net.modules():
        if isinstance(layer, _BatchNorm):
            for tensor in (*layer.parameters(), *layer.buffers()):
                if tensor.dim():
                    nn.init.uniform_(tensor, 0.5, 1.5)
    return net.double().eval()


def build(case):
    make, rules, shape = CASES[case]
    full = randomise(make(lambda channels: channels))
    net = copy.deepcopy(full)
    convert(net, SlimState(), rules)
    x = torch.randn(shape).double()
    find_joints(net, x)
    return full, net, x


def by_hand(case, full, width):
    """The stock network of that width, with the leading part of the full."""
    net = CASES[case][0](lambda channels: int(channels * width))
    net = net.double().eval()
    state = full.state_dict()
    for name, tensor in net.state_dict().items():
        part = state[name][tuple(slice(n) for n in tensor.shape)]
        if name == 'fused.weight':
            last = state[name][: len(tensor), -4:]
            part = torch.cat([part[:, :-4], last], 1)
        tensor.copy_(part)
    return net


def put_in(net, statistics):
    for name, (mean, var) in statistics.items():
        net.get_submodule(name).running_mean.copy_(mean)
        net.get_submodule(name).running_var.copy_(var)


def random_statistics(expected):
    """For every batch norm of a network built by hand."""
    return {
        name: (
            torch.randn_like(m.running_mean),
            torch.rand_like(m.running_var),
        )
        for name, m in expected.named_modules()
        if isinstance(m, _BatchNorm)
    }


@pytest.mark.parametrize('given', [False, True], ids=['running', 'given'])
@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('case', CASES)
def test_equals_a_network_built_by_hand(case, width, given):
    """Classes, every attribute that is printed, tensors and outputs."""
    full, net, x = build(case)
    expected = by_hand(case, full, width)
    statistics = None
    if given:
        statistics = random_statistics(expected)
        put_in(expected, statistics)
    set_width(net, width)
    with torch.no_grad(), use_statistics(net, statistics):
        sliced = net(x)
    make_static(net, torch.empty_like(x, device='meta'), statistics=statistics)
    found, wanted = net.state_dict(), expected.state_dict()
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
    assert str(net) == str(expected)  # names classes and attributes
    for ours, theirs in zip(net.modules(), expected.modules()):
        assert type(ours) is type(theirs)
        assert ours.__dict__.keys() == theirs.__dict__.keys()
    with torch.no_grad():
        assert torch.equal(net(x), sliced)
        assert torch.equal(net(x), expected(x))
    if case != 'images':  # SyncBatchNorm does not train on a CPU
        net.train(), expected.train()
        assert torch.equal(net(x), expected(x))
        for name, buffer in expected.named_buffers():
            assert torch.equal(net.get_buffer(name), buffer), name


@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('case', CASES)
def test_memory(case, width):
    """Its own where it is narrower, and no more of it; else shared.

    Statistics always are its own.
    """
    _, net, x = build(case)
    for parameter in [*net.parameters()][::2]:
        parameter.requires_grad_(False)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    text = str(net)
    thin = share_weights(net)
    set_width(thin, width)
    make_static(thin, x)
    originals = dict([*net.named_parameters(), *net.named_buffers()])
    statistics = dict(thin.named_buffers())
    thinner = 0
    for name, t in [*thin.named_parameters(), *statistics.items()]:
        original, storage = originals[name], t.untyped_storage()
        shared = storage.data_ptr() == original.untyped_storage().data_ptr()
        whole = t.shape == original.shape and name not in statistics
        assert shared == whole, name
        assert t.requires_grad == original.requires_grad, name
        assert t.is_leaf and t.is_contiguous()
        assert storage.nbytes() == t.numel() * t.element_size()
        thinner += t.shape != original.shape
    assert (thinner > 4) == (width < 1)
    # The original is what it was.
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert str(net) == text
    with torch.no_grad(), active_width(net, width):
        assert torch.equal(net(x), thin(x))


def test_statistics_are_copied_and_those_in_use_forgotten():
    """A bank changes later on; layers that it leaves out keep their own."""
    full, net, x = build('video')
    set_width(net, 0.5)
    expected = by_hand('video', full, 0.5)
    first = {'1': random_statistics(expected)['1']}
    with use_statistics(net, random_statistics(expected)):
        make_static(net, x, statistics=first)
    put_in(expected, first)
    for tensor in first['1']:
        tensor.fill_(9)
    with torch.no_grad():
        assert torch.equal(net(x), expected(x))


def test_layers_that_do_not_run_stay_whole():
    net = nn.ModuleDict({'run': nn.Linear(32, 16), 'idle': nn.Linear(16, 4)})
    net['norm'] = nn.BatchNorm1d(16)
    convert(net, SlimState())
    before = dict(net.named_parameters())
    set_width(net, 0.5)
    make_static(net, torch.empty(2, 24), forward=lambda net, x: net['run'](x))
    assert (net['run'].in_features, net['run'].out_features) == (24, 8)
    assert net['run'].weight.shape == (8, 24)
    for name in ('idle.weight', 'idle.bias', 'norm.weight'):
        assert net.get_parameter(name) is before[name]
    assert {type(m) for m in net.values()} == {nn.Linear, nn.BatchNorm1d}
    assert net['norm'].num_features == len(net['norm'].running_mean) == 16


def test_an_error_changes_nothing():
    def fail(net, x):
        raise ZeroDivisionError(net(x).shape)

    _, net, x = build('groups')
    set_width(net, 0.5)
    before = dict(net.named_parameters())
    with pytest.raises(ZeroDivisionError):
        make_static(net, x, forward=fail)
    assert all(p is before[name] for name, p in net.named_parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_statistics_of_no_layer_are_refused():
    _, net, x = build('video')
    with pytest.raises(ValueError, match='bn1'):
        make_static(
            net, x, statistics={'bn1': (torch.ones(32), torch.ones(32))}
        )
