"""Joints behind and before grouped layers, beside results computed by hand."""

import pytest
import torch
import torch.nn.functional as F
from plain_networks import rounded
from torch import nn

from mutualnet_mm.slimmable import active_width, make_static, slim

WIDTHS = [step / 20 for step in range(1, 21)]
X = torch.randn(1, 3, 5, 5, dtype=torch.double)


def conv(inputs, outputs, groups=1):
    return nn.Conv2d(inputs, outputs, 1, groups=groups)


def kept(full, width):
    return rounded(full * width) if width < 1 else full


def leading(layer, x, outputs, groups=1):
    """A convolution by its leading outputs, and groups of its own width."""
    weight = layer.weight[:outputs]
    if layer.groups == 1:
        weight = weight[:, : x.shape[1]]
    return F.conv2d(x, weight, layer.bias[:outputs], groups=groups)


class Multiplied(nn.Module):
    """Depthwise layers that make several channels of each one."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 24), conv(24, 48, 24)
        self.c, self.d = conv(3, 48), conv(48, 96, 48)
        self.out = conv(144, 10)

    def forward(self, x):
        return self.out(torch.cat([self.b(self.a(x)), self.d(self.c(x))], 1))

    def by_hand(self, x, width):
        parts, columns = [], []
        for start, first, second in ((0, 'a', 'b'), (48, 'c', 'd')):
            first, second = getattr(self, first), getattr(self, second)
            number = kept(len(first.weight), width)
            x_first = leading(first, x, number)
            parts.append(leading(second, x_first, 2 * number, number))
            columns += range(start, start + 2 * number)
        weight = self.out.weight[:, columns]
        return F.conv2d(torch.cat(parts, 1), weight, self.out.bias)


class MultipliedAndAdded(nn.Module):
    """Each channel of ``b`` meets two of ``c``: those narrow in pairs."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 48), conv(48, 96, 48), conv(3, 96)
        self.out = conv(96, 10)

    def forward(self, x):
        return self.out(self.b(self.a(x)) + self.c(x))

    def by_hand(self, x, width):
        number = kept(48, width)
        b = leading(self.b, leading(self.a, x, number), 2 * number, number)
        return leading(self.out, b + leading(self.c, x, 2 * number), 10)


class Shrunk(nn.Module):
    """Groups of 12 channels that make 4 each, joined with others."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 96), conv(96, 32, 8), conv(3, 48)
        self.out = conv(80, 10)

    def forward(self, x):
        return self.out(torch.cat([self.b(self.a(x)), self.c(x)], 1))

    def by_hand(self, x, width):
        number = kept(32, width) // 4  # of 24 channels each: two groups
        b = leading(
            self.b, leading(self.a, x, 12 * number), 4 * number, number
        )
        c = leading(self.c, x, kept(48, width))
        columns = [*range(b.shape[1]), *range(32, 32 + c.shape[1])]
        weight = self.out.weight[:, columns]
        return F.conv2d(torch.cat([b, c], 1), weight, self.out.bias)


@pytest.mark.parametrize('make', [Multiplied, MultipliedAndAdded, Shrunk])
def test_groups_that_make_other_numbers_of_channels(make):
    net = slim(make().double())
    with torch.no_grad():
        for width in WIDTHS:
            with active_width(net, width):
                found = net(X)
            torch.testing.assert_close(found, net.by_hand(X, width))
        with active_width(net, 0.55):
            sliced = net(X)
            make_static(net, X)
        assert torch.equal(net(X), sliced)


class Parts(nn.Module):
    """Parts that are joined again before a layer in groups of 16."""

    def __init__(self, grouped, sizes):
        super().__init__()
        self.a, self.grouped, self.sizes = conv(3, 96), grouped, sizes
        self.out = conv(96, 10)

    def forward(self, x):
        x = self.a(x)
        first = x.shape[1] * self.sizes[0] // 96
        parts = [x[:, :first], x[:, first:].relu()]
        return self.out(self.grouped(torch.cat(parts, 1)))

    def by_hand(self, x, width):
        """Nothing but whole groups of each part, by masks."""
        rows = torch.zeros(96)
        start = 0
        for size in self.sizes:
            unit = 16 * size // min(self.sizes)
            number = unit / 8 * kept(8 * size / unit, width)
            rows[start : start + int(number)] = 1
            start += size
        mask = rows.view(1, 96, 1, 1).double()
        first, second = (self.a(x) * mask).split(self.sizes, 1)
        found = self.grouped(torch.cat([first, second.relu()], 1)) * mask
        return self.out(found)


@pytest.mark.parametrize('sizes', [(48, 48), (32, 64)])
@pytest.mark.parametrize(
    'make', [lambda: conv(96, 96, 6), lambda: nn.GroupNorm(6, 96)]
)
def test_every_part_fills_whole_groups(make, sizes):
    net = slim(Parts(make(), sizes).double())
    with torch.no_grad():
        for width in WIDTHS:
            with active_width(net, width):
                found = net(X)
            torch.testing.assert_close(found, net.by_hand(X, width))
