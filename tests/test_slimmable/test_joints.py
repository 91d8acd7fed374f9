"""Joints of channels: each case beside a narrow network copied by hand."""

import pytest
import torch
import torch.nn.functional as F
from plain_networks import rounded
from torch import nn

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    active_width,
    convert,
    make_static,
    verify_slicing,
)

WIDTHS = (1.0, 0.75, 0.5, 0.3)


def leading(full, width):
    return list(range(rounded(full * width) if width < 1 else full))


def after(start, channels):
    return [start + channel for channel in channels]


def halves(full, width):
    """The leading part of each half."""
    part = leading(full // 2, width)
    return part + after(full // 2, part)


class Two(nn.Module):
    """Two layers that make channels, and one that meets both."""

    def __init__(self, inputs=96, groups=1):
        super().__init__()
        self.a = nn.Conv2d(3, 64, 3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.b = nn.Conv2d(64, 32, 3, padding=1, groups=groups)
        self.out = nn.Conv2d(inputs, 40, 1)

    def rows(self, width):
        """Kept output channels of ``a`` and of ``b``."""
        return leading(64, width), leading(32, width)


class Concatenated(Two):
    def forward(self, x):
        a = self.norm(self.a(x))
        return self.out(torch.cat([self.b(a), a], 1))

    def columns(self, width):
        a, b = self.rows(width)
        return a, b + after(32, a)


class Several(Two):
    """A list of maps, pooled, upsampled, and a constant between them."""

    def __init__(self):
        super().__init__(64 + 32 + 1 + 64)

    def forward(self, x):
        a = F.relu_(self.norm(self.a(x)))
        b = F.interpolate(F.max_pool2d(self.b(a), 2), x.shape[2:])
        place = torch.ones_like(x[:, :1])
        return self.out(torch.cat([a, b.sigmoid(), place, a * a], 1))

    def columns(self, width):
        a, b = self.rows(width)
        return a, a + after(64, b) + [96] + after(97, a)


class Halves(Two):
    """Channels are split in the middle: each half keeps its leading part."""

    def __init__(self):
        super().__init__(inputs=32 + 32)
        self.b = nn.Conv2d(32, 32, 1)

    def forward(self, x):
        first, second = self.norm(self.a(x)).chunk(2, 1)
        return self.out(torch.cat([self.b(second), first], 1))

    def rows(self, width):
        return halves(64, width), leading(32, width)

    def columns(self, width):
        part = leading(32, width)
        return part, part + after(32, part)


class Added(Two):
    """A sum with a concatenation splits what it is added to."""

    def __init__(self):
        super().__init__(inputs=64)

    def forward(self, x):
        a = self.norm(self.a(x))
        b = self.b(a)
        return self.out(a + torch.cat([b, b * b], 1))

    def rows(self, width):
        return halves(64, width), leading(32, width)

    def columns(self, width):
        return halves(64, width), halves(64, width)


class Attention(Halves):
    """Radix attention: parts are weighed by a softmax over them, and added."""

    def forward(self, x):
        a = self.norm(self.a(x))
        parts = a.view(len(a), 2, -1, *a.shape[2:])
        weights = parts.mean((3, 4), keepdim=True).softmax(1)
        total = (parts * weights).sum(1)
        return self.out(torch.cat([self.b(total), total], 1))


class Pooled(Two):
    """A context as of GCNet: a matrix product sums over the pixels."""

    def __init__(self):
        super().__init__(inputs=64)
        self.mask = nn.Conv2d(64, 1, 1)
        self.b = nn.Conv2d(64, 64, 1)

    def forward(self, x):
        a = self.norm(self.a(x))
        weights = self.mask(a).flatten(2).softmax(2)
        context = a.flatten(2).unsqueeze(1) @ weights.unsqueeze(3)
        return self.out(a + self.b(context.transpose(1, 2)))

    def rows(self, width):
        return leading(64, width), leading(64, width)

    def columns(self, width):
        return self.rows(width)


class Shuffled(Two):
    def __init__(self):
        super().__init__(inputs=32)

    def forward(self, x):
        a = self.norm(self.a(x))
        n, c, h, w = a.shape
        a = a.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.out(self.b(a))

    def rows(self, width):
        return halves(64, width), leading(32, width)

    def columns(self, width):
        part = leading(32, width)
        return sorted([2 * c for c in part] + [2 * c + 1 for c in part]), part


class Flattened(Two):
    """A fully connected layer over two maps, and one over a scale."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(96 * 4, 40)

    def forward(self, x):
        a = self.norm(self.a(F.adaptive_avg_pool2d(x, 2)))
        return self.out(torch.cat([a, self.b(a)], 1).flatten(1))

    def columns(self, width):
        a, b = self.rows(width)
        joined = a + after(64, b)
        return a, [4 * channel + i for channel in joined for i in range(4)]


CASES = (
    *(Concatenated, Several, Halves, Added, Attention, Pooled, Shuffled),
    Flattened,
)


def randomised(make):
    net = make().double().eval()
    for tensor in (*net.norm.parameters(), *net.norm.buffers()):
        if tensor.dim():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return net


def slimmed(make, **state):
    net = randomised(make)
    convert(net, SlimState(**state), {'out': LayerRule(fixed=True)})
    verify_slicing(net)
    return net


def put(layer, full, rows, columns=None):
    """Copy rows and columns of ``full``'s tensors into a smaller layer."""
    for name, tensor in full.state_dict().items():
        if tensor.dim():
            part = tensor[rows]
            if tensor.dim() > 1 and columns is not None:
                part = part[:, columns]
            tensor = part.clone()
            if name in layer._parameters:
                setattr(layer, name, nn.Parameter(tensor))
            else:
                setattr(layer, name, tensor)


def by_hand(make, full, width):
    net = randomised(make)
    a, b = full.rows(width)
    into_b, into_out = full.columns(width)
    put(net.a, full.a, a)
    put(net.norm, full.norm, a)
    put(net.b, full.b, b, into_b)
    put(net.out, full.out, list(range(40)), into_out)
    if make is Pooled:
        put(net.mask, full.mask, [0], a)
    return net


def unlike(tensor, rows, columns=None):
    """Whether a gradient lies in other places than these."""
    seen = tensor.clone()
    if columns is None:
        seen[rows] = 0
    else:
        for row in rows:
            seen[row, columns] = 0
    return bool(seen.any())


@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('make', CASES)
def test_equals_a_narrow_network_copied_by_hand(make, width):
    net = slimmed(make)
    hand = by_hand(make, net, width)
    x = torch.randn(2, 3, 8, 8, dtype=torch.double)
    with active_width(net, width):
        found = net(x)
        found.square().sum().backward()
    expected = hand(x)
    expected.square().sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    a, b = net.rows(width)
    into_b, into_out = net.columns(width)
    for name, rows, columns in (
        ('a', a, [0, 1, 2]),
        ('b', b, into_b),
        ('out', list(range(40)), into_out),
    ):
        grad = net.get_submodule(name).weight.grad
        torch.testing.assert_close(
            grad[rows][:, columns], hand.get_submodule(name).weight.grad
        )
        assert not unlike(grad, rows, columns)
    torch.testing.assert_close(net.norm.weight.grad[a], hand.norm.weight.grad)
    assert not unlike(net.norm.weight.grad, a)


@pytest.mark.parametrize('width', WIDTHS[1:])
@pytest.mark.parametrize('make', CASES)
def test_static_form(make, width):
    net = slimmed(make)
    hand = by_hand(make, net, width)
    x = torch.randn(2, 3, 8, 8, dtype=torch.double)
    with active_width(net, width):
        make_static(net, x)
    for name, tensor in hand.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name
    with torch.no_grad():
        assert torch.equal(net(x), hand(x))


@pytest.mark.parametrize('make', CASES)
def test_full_width_is_bit_equal_with_the_same_keys(make):
    torch.manual_seed(0)
    stock = randomised(make)
    net = slimmed(make)
    net.load_state_dict(stock.state_dict())
    x = torch.randn(2, 3, 8, 8, dtype=torch.double)
    with torch.no_grad():
        assert torch.equal(net(x), stock(x))


@pytest.mark.parametrize('make', CASES)
def test_wider_than_one(make):
    """Built at twice the width, 0.5 of it is 1.0."""
    net, wide = slimmed(make), slimmed(make, max_width=2.0)
    wide.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 8, 8, dtype=torch.double)
    with torch.no_grad(), active_width(net, 0.5), active_width(wide, 1.0):
        assert torch.equal(net(x), wide(x))


def test_running_statistics_behind_a_split():
    """A narrow network alone moves those of its own channels."""
    net = slimmed(Halves)
    net.train()
    x = torch.randn(4, 3, 8, 8, dtype=torch.double)
    kept, _ = net.rows(0.5)
    before = net.norm.running_mean.clone()
    with active_width(net, 0.5):
        net(x)
    expected = before.clone()
    mean = F.conv2d(x, net.a.weight[kept], net.a.bias[kept], padding=1)
    expected[kept] = 0.9 * before[kept] + 0.1 * mean.mean((0, 2, 3))
    torch.testing.assert_close(net.norm.running_mean, expected)


class SharedByJoints(Two):
    """One layer for two inputs that are joined in other orders."""

    def forward(self, x):
        a = self.norm(self.a(x))
        b = self.b(a)
        one = self.out(torch.cat([a, b], 1))
        return one + self.out(torch.cat([b, a], 1))


def test_a_layer_that_several_joints_share_is_refused():
    with pytest.raises(ConfigError, match='"out" is shared by inputs'):
        slimmed(SharedByJoints)


class Grouped(Two):
    """A grouped layer: what comes before keeps whole groups of 12."""

    def __init__(self):
        super().__init__(inputs=32)
        self.a = nn.Conv2d(3, 96, 1)
        self.norm = nn.BatchNorm2d(96)
        self.b = nn.Conv2d(96, 32, 1, groups=8)

    def forward(self, x):
        return self.out(self.b(self.norm(self.a(x))))


@pytest.mark.parametrize('width, groups', [(0.5, 4), (0.2, 2)])
def test_groups_stay_whole(width, groups):
    net = slimmed(Grouped)
    x = torch.randn(1, 3, 5, 5, dtype=torch.double)
    runs = []
    net.b.register_forward_hook(lambda _, args, out: runs.append((args, out)))
    with torch.no_grad(), active_width(net, width):
        net(x)
    (((given,), out),) = runs
    assert given.shape[1] == 12 * groups
    assert out.shape[1] == 4 * groups


class Auxiliary(Two):
    """With a branch, behind the joint, that training alone runs."""

    def __init__(self):
        super().__init__()
        self.aux = nn.Conv2d(96, 8, 1)

    def forward(self, x):
        a = self.norm(self.a(x))
        both = torch.cat([self.b(a), a], 1)
        if self.training:
            return self.out(both), self.aux(both)
        return self.out(both)


def test_a_layer_that_was_not_proven_is_refused_once_it_runs():
    """Its input's active channels are not the leading ones."""
    net = slimmed(Auxiliary).train()
    x = torch.randn(2, 3, 8, 8, dtype=torch.double)
    net(x)
    with active_width(net, 0.5):
        with pytest.raises(ConfigError, match='"aux" did not run.*training'):
            net(x)
        net.eval()(x)


class NormInTraining(Two):
    def __init__(self):
        super().__init__(inputs=32)
        self.late = nn.BatchNorm2d(32)

    def forward(self, x):
        x = self.b(self.norm(self.a(x)))
        return self.out(self.late(x) if self.training else x)


def test_a_layer_that_was_not_proven_runs_at_full_width():
    net = slimmed(NormInTraining).train()
    x = torch.randn(2, 3, 8, 8, dtype=torch.double)
    with net.a.slim_state.activate(1.0, track_stats=False):
        assert net(x).shape[1] == 40
