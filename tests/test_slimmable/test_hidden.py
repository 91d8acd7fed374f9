"""Which layers are hidden, in networks that are as small as can be."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_versions import needs_traced_chunks

from mutualnet_mm.slimmable import LayerRule, SlimState, convert
from mutualnet_mm.slimmable.hidden import hidden_layers

X = torch.randn(2, 5, 16)


class Block(nn.Module):
    """A stream of 16 channels, and two layers beside it."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(16, 16)
        self.first = nn.Linear(16, 32)
        self.second = nn.Linear(32, 16)
        self.third = nn.Linear(16, 16)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.second(self.hidden(self.first(x)))
        return x + self.third(x)

    def hidden(self, x):
        return F.gelu(x)


class Gated(Block):
    """Halves are multiplied: each narrows."""

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(16, 16)

    def hidden(self, x):
        a, b = x.chunk(2, -1)
        return F.silu(a) * b


class Convolved(Block):
    """Each channel is a map of its own for a while."""

    def __init__(self):
        super().__init__()
        self.each = nn.Conv1d(32, 32, 3, padding=1, groups=32)

    def hidden(self, x):
        return F.gelu(self.each(x.transpose(1, 2)).transpose(1, 2))


class Normed(Block):
    """A norm that is a layer narrows with what it gets."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(32)

    def hidden(self, x):
        return self.norm(x)


class Scaled(Block):
    """Numbers that lie beside the layers are for all channels."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(32))

    def hidden(self, x):
        return x * self.scale


class Biased(Scaled):
    def hidden(self, x):
        x += self.scale
        return x


class FreeNorm(Block):
    def hidden(self, x):
        return F.layer_norm(x, (32,))


class Softmax(Block):
    def hidden(self, x):
        return x.softmax(-1)


class Mean(Block):
    def hidden(self, x):
        return x * x.mean(-1, keepdim=True)


class Product(Block):
    """Attention: channels are summed over without a layer."""

    def hidden(self, x):
        return (x @ x.transpose(1, 2)).softmax(-1) @ x


class Looked(Block):
    """An operator that nothing is known of."""

    def hidden(self, x):
        return x.sort(-1).values


class Returned(Block):
    def forward(self, x):
        hidden = self.first(self.embed(x))
        return self.second(hidden), hidden


@pytest.mark.parametrize(
    'make, found',
    [
        (Block, ['first']),
        pytest.param(Gated, ['first'], marks=needs_traced_chunks),
        (Convolved, ['first']),
        (Normed, ['first']),
        (Scaled, []),
        (Biased, []),
        (FreeNorm, []),
        (Softmax, []),
        (Mean, []),
        (Product, []),
        (Looked, []),
        # Here it is the first layer that other layers alone see.
        (Returned, ['embed']),
    ],
)
def test_hidden_layers(make, found):
    net = make().eval()
    convert(net, SlimState(), default=LayerRule(fixed=True), strict=False)
    assert hidden_layers(net, X) == found
    meta = net.to('meta')
    assert hidden_layers(meta, X.to('meta')) == found
