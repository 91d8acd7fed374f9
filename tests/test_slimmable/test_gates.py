"""Maps of a single channel, or of few, that weigh many channels."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import active_width, slim

ACTIVE = {0.25: 8, 0.5: 16, 0.75: 24}


class Gate(nn.Module):
    """Each place is weighed as one channel says."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3)
        self.gate = nn.Conv2d(32, 1, 5, padding=2)
        self.last = nn.Conv2d(32, 12, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(x * self.gate(x).sigmoid())


class Shift(Gate):
    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.gate(x))


class ByImage(Gate):
    """As the first channel of the image says."""

    def forward(self, x):
        return self.last(self.first(x) * x[:, :1, 1:-1, 1:-1])


class Branches(Gate):
    """Two branches are weighed against each other."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(32, 2, 1)
        self.other = nn.Conv2d(32, 32, 1)

    def forward(self, x):
        x = self.first(x)
        weights = self.gate(x).softmax(1)
        return self.last(x * weights[:, :1] + self.other(x) * weights[:, 1:])


def narrow(layer, inputs, outputs):
    """A stock layer of the leading channels."""
    sizes = layer.kernel_size, layer.stride, layer.padding
    found = nn.Conv2d(inputs, outputs, *sizes).double()
    found.weight.data = layer.weight.data[:outputs, :inputs].clone()
    found.bias.data = layer.bias.data[:outputs].clone()
    return found


@pytest.mark.parametrize('width', ACTIVE)
@pytest.mark.parametrize('make', [Gate, Shift, ByImage, Branches])
def test_equals_a_narrow_network_copied_by_hand(make, width):
    torch.manual_seed(0)
    stock = make().double()
    hand = make().double()
    channels = ACTIVE[width]
    hand.first = narrow(stock.first, 3, channels)
    hand.gate = narrow(stock.gate, channels, stock.gate.out_channels)
    hand.last = narrow(stock.last, channels, 12)
    if make is Branches:
        hand.other = narrow(stock.other, channels, channels)
    x = torch.randn(2, 3, 9, 9, dtype=torch.double)
    net = slim(stock)
    with torch.no_grad(), active_width(net, width):
        assert_close(net(x), hand(x), rtol=1e-10, atol=1e-10)


class Mixed(Gate):
    """A gate of the mean over channels, which is another one if narrow."""

    def forward(self, x):
        x = self.first(x)
        return self.last(x * x.mean(1, keepdim=True))


def test_a_gate_of_mixed_channels_is_refused():
    with pytest.raises(ConfigError, match='result of layer "last"'):
        slim(Mixed())
