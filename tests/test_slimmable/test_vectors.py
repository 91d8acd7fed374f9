"""Networks with layer scale and norms of other kinds, beside narrow ones."""

import copy
import pickle

import pytest
import torch
from plain_networks import rounded
from torch import nn
from torch_versions import needs_export

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    active_width,
    convert,
    count_module_params,
    make_static,
    verify_slicing,
)

WIDTHS = (1.0, 0.75, 0.5, 0.3)


class Block(nn.Module):
    """ConvNeXt's, with a scale that is of another shape, and one number."""

    def __init__(self, channels, hidden, groups=1):
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)
        self.gamma = nn.Parameter(torch.rand(channels) + 0.5)
        self.beta = nn.Parameter(torch.rand(channels, 1, 1))
        self.gain = nn.Parameter(torch.rand(1))
        self.absent = nn.Parameter(torch.rand(3)) if groups > 1 else None

    def forward(self, x):
        out = self.norm(self.mix(x).permute(0, 2, 3, 1))
        out = self.gamma * self.project(self.expand(out).relu())
        return x + self.gain * out.permute(0, 3, 1, 2) + self.beta


class Net(nn.Module):
    """Groups of 24 in the stem make all that is added to it follow."""

    def __init__(self, channels=96, hidden=64, joined=128, norm_groups=4):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.stem_norm = nn.GroupNorm(norm_groups, channels)
        self.block = Block(channels, hidden)
        self.side = nn.Conv2d(channels, channels, 1)
        self.wide = nn.Conv2d(channels, joined - channels, 1)
        self.scale = nn.ParameterDict()
        self.tail = Tail(joined)

    def forward(self, x):
        x = self.block(self.stem_norm(self.stem(x)))
        x = x + self.side(x)
        return self.tail(torch.cat([self.wide(x), x], 1))


class Tail(nn.Module):
    """A scale behind a joint."""

    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)
        self.head = nn.Conv2d(channels, 5, 1)

    def forward(self, x):
        return self.head(x * self.scale)


def make_net(*sizes):
    torch.manual_seed(0)
    return Net(*sizes).double().eval()


def slimmed(net):
    convert(net, SlimState(), {'tail.head': LayerRule(fixed=True)})
    verify_slicing(net)
    return net


@pytest.fixture(scope='module')
def verified():
    return slimmed(make_net())


@pytest.fixture
def net(verified):
    return copy.deepcopy(verified)


def kept(width):
    """Channels of the stem, the hidden layer and the two joined."""
    if width == 1:
        return list(range(96)), list(range(64)), list(range(128))
    # The stem's in whole groups of 24; 24 is a multiple of 8.
    whole = max(24, int(96 * width + 12) // 24 * 24)
    whole += 24 * (whole < 0.9 * 96 * width)
    stem = list(range(whole))
    wide = list(range(rounded(32 * width)))
    return (
        stem,
        list(range(rounded(64 * width))),
        wide + [32 + c for c in stem],
    )


def by_hand(net, width):
    stem, hidden, joined = kept(width)
    narrow = make_net(len(stem), len(hidden), len(joined), len(stem) // 24)
    wide = [c for c in joined if c < 32]
    axes = {
        'stem': (stem, None),
        'stem_norm': (stem,),
        'block.mix': (stem, None),
        'block.norm': (stem,),
        'block.expand': (hidden, stem),
        'block.project': (stem, hidden),
        'block.gamma': (stem,),
        'block.beta': (stem,),
        'block.gain': (None,),
        'side': (stem, stem),
        'wide': (wide, stem),
        'tail.scale': (joined,),
        'tail.head': (None, joined),
    }
    where = {}
    for name, parameter in narrow.named_parameters():
        index = axes.get(name) or axes[name.rpartition('.')[0]]
        where[name] = index[: net.get_parameter(name).dim()]
        parameter.data = part(net.get_parameter(name), where[name])
    return narrow, where


def part(tensor, where):
    for axis, index in enumerate(where):
        if index is not None:
            tensor = tensor.index_select(axis, torch.tensor(index))
    return tensor.detach().clone()


@pytest.mark.parametrize('width', WIDTHS)
def test_equals_a_narrow_network_copied_by_hand(net, width):
    stock = make_net()
    hand, where = by_hand(stock, width)
    x = torch.randn(2, 3, 6, 5, dtype=torch.double)
    with active_width(net, width):
        found = net(x)
        found.square().sum().backward()
    expected = hand(x)
    expected.square().sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for name, parameter in hand.named_parameters():
        grad = net.get_parameter(name).grad
        torch.testing.assert_close(
            part(grad, where[name]), parameter.grad, msg=name
        )
        assert grad.count_nonzero() == parameter.grad.count_nonzero(), name


@pytest.mark.parametrize('width', WIDTHS)
def test_static_form_and_parameters(net, width):
    stock = make_net()
    hand, _ = by_hand(stock, width)
    x = torch.randn(2, 3, 6, 5, dtype=torch.double)
    with active_width(net, width):
        params = count_module_params(net, x)
        make_static(net, x)
    assert params == sum(p.numel() for p in hand.parameters())
    assert type(net.block) is Block
    for name, tensor in hand.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name
    assert torch.equal(net(x), hand(x))


def test_full_width_is_bit_equal_with_the_same_keys(net):
    stock = make_net()
    assert isinstance(net.block, Block)
    assert list(net.state_dict()) == list(stock.state_dict())
    net.load_state_dict(make_net().state_dict())
    stock.load_state_dict(net.state_dict(), assign=True)
    x = torch.randn(2, 3, 6, 5, dtype=torch.double)
    assert torch.equal(net(x), stock(x))


def test_copies_pickles_and_moves(net):
    x = torch.randn(2, 3, 6, 5, dtype=torch.double)
    with active_width(net, 0.5):
        expected = net(x)
    stored = pickle.loads(pickle.dumps(net))
    for twin in (copy.deepcopy(net), stored, stored.float().double()):
        assert isinstance(twin.block.gamma, nn.Parameter)
        with active_width(twin, 0.5):
            assert twin.block.gamma.shape == (48,)
            torch.testing.assert_close(twin(x), expected, rtol=1e-5, atol=1e-5)
    net.block.gamma = nn.Parameter(torch.zeros(96).double())
    with active_width(net, 0.5):
        assert not torch.equal(net(x), expected)


@needs_export
def test_what_a_program_traces(net):
    """``torch.export`` sees the narrow vectors."""
    x = torch.randn(2, 3, 6, 5, dtype=torch.double)
    with active_width(net, 0.5):
        program = torch.export.export(net, (x,))
        expected = net(x)
    assert torch.equal(program.module()(x), expected)


class Held(Net):
    """The network itself holds a vector."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.rand(5, 1, 1))
        self.inner = nn.Parameter(torch.rand(96, 1, 1))

    def forward(self, x):
        x = self.stem(x) * self.inner
        return self.tail(torch.cat([self.wide(x), x], 1)) + self.offset


def test_a_network_that_holds_a_vector_itself():
    """One along channels that all stay is whole at any width."""
    torch.manual_seed(0)
    net = slimmed(Held().double().eval())
    x = torch.randn(2, 3, 6, 5, dtype=torch.double)
    with active_width(net, 0.5):
        out = net(x)
        assert net.offset.shape == (5, 1, 1)
        assert net.inner.shape == (48, 1, 1)
    twin = pickle.loads(pickle.dumps(net))
    with active_width(twin, 0.5):
        assert torch.equal(twin(x), out)


class Misplaced(Net):
    """A vector that does not lie along the channels."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.rand(96))

    def forward(self, x):
        out = super().forward(x)
        return out + self.rows.view(2, 48).sum(1).mean()


class Weighed(Net):
    """What one channel gets depends on the numbers of all."""

    def __init__(self):
        super().__init__()
        self.votes = nn.Parameter(torch.rand(96))

    def forward(self, x):
        x = self.stem(x) * self.votes.softmax(0)[:, None, None]
        return self.tail(torch.cat([self.wide(x), x], 1))


def test_a_vector_that_no_channel_meets_stays_whole():
    net = slimmed(Misplaced().double().eval())
    with active_width(net, 0.5):
        assert net.rows.shape == (96,)


def test_a_vector_that_is_not_understood_is_refused():
    with pytest.raises(ConfigError, match='cannot be slimmed'):
        slimmed(Weighed().double().eval())
