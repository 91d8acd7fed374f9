import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    BuiltLayers,
    LayerRule,
    SlimBatchNorm2d,
    SlimConv2d,
    SlimLayer,
    SlimState,
    SlimSyncBatchNorm,
    convert,
    trust_forward,
)
from mutualnet_mm.slimmable.convert import restore

# Stem, then middle and output of both blocks, computed by hand.
CHANNELS = {
    1.0: (32, 16, 64, 32, 128),
    0.7: (24, 12, 48, 22, 88),
    0.5: (16, 8, 32, 16, 64),
    0.3: (16, 6, 24, 10, 40),
}
MIDDLE = LayerRule(ratio=1 / 4)
RULES = {
    **{f'block{i}.{n}': MIDDLE for i in (1, 2) for n in ('a', 'b')},
    'fc': LayerRule(fixed=True),
}


class Block(nn.Module):
    def __init__(self, inputs, middle, outputs, stride):
        super().__init__()
        self.a = nn.Conv2d(inputs, middle, 1, bias=False)
        self.a_bn = nn.BatchNorm2d(middle)
        self.b = nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
        self.b_bn = nn.BatchNorm2d(middle)
        self.c = nn.Conv2d(middle, outputs, 1, bias=False)
        self.c_bn = nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.skip_bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        out = F.relu(self.a_bn(self.a(x)))
        out = F.relu(self.b_bn(self.b(out)))
        return F.relu(self.c_bn(self.c(out)) + self.skip_bn(self.skip(x)))


class Net(nn.Module):
    def __init__(self, stem, middle1, outputs1, middle2, outputs2):
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, 2, 1)
        self.block1 = Block(stem, middle1, outputs1, 1)
        self.block2 = Block(outputs1, middle2, outputs2, 2)
        self.fc = nn.Linear(outputs2, 10)

    def forward(self, x):
        out = self.block2(self.block1(F.relu(self.stem(x))))
        return self.fc(out.mean((2, 3)))


def leading(full, narrow):
    return full[tuple(slice(size) for size in narrow.shape)]


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('width', [0.3, 0.5, 0.7, 1.0])
def test_sliced_network_is_the_narrow_one(width, training):
    full, narrow = Net(*CHANNELS[1.0]), Net(*CHANNELS[width])
    for name, buffer in full.named_buffers():
        if 'running' in name:
            buffer.uniform_(0.5, 1.5)
    for name, tensor in narrow.state_dict().items():
        tensor.copy_(leading(full.state_dict()[name], tensor))
    state = SlimState()
    convert(full, state, RULES)
    state.set_width(width)

    x = torch.randn(3, 3, 21, 18)
    labels = torch.tensor([1, 4, 9])
    out, expected = full.train(training)(x), narrow.train(training)(x)
    assert_close(out, expected)
    F.cross_entropy(out, labels).backward()
    F.cross_entropy(expected, labels).backward()
    for name, parameter in narrow.named_parameters():
        grad = full.get_parameter(name).grad
        assert_close(leading(grad, parameter), parameter.grad, msg=name)
        assert grad.count_nonzero() == parameter.grad.count_nonzero(), name
    for name, buffer in narrow.named_buffers():
        assert_close(leading(full.get_buffer(name), buffer), buffer)


def test_full_width_is_bit_equal_and_keys_stay():
    stock = Net(*CHANNELS[1.0])
    net = copy.deepcopy(stock)
    convert(net, SlimState(), RULES)
    net.load_state_dict(stock.state_dict(), strict=True)
    stock.load_state_dict(net.state_dict(), strict=True)
    assert list(net.state_dict()) == list(stock.state_dict())
    assert [n for n, _ in net.named_parameters()] == [
        n for n, _ in stock.named_parameters()
    ]
    x = torch.randn(2, 3, 21, 18)
    assert torch.equal(net(x), stock(x))
    assert torch.equal(net.eval()(x), stock.eval()(x))


class OwnForward(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class OwnParameter(nn.Conv2d):
    """Whose forward reads more than a convolution has."""

    def __init__(self):
        super().__init__(8, 8, 1)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return super().forward(x) * self.scale.view(1, -1, 1, 1)


class RawParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(8, 3))


REFUSED = [
    nn.LayerNorm((8, 4, 4)),
    nn.Bilinear(8, 8, 8),
    OwnParameter(),
    RawParameter(),
]


@pytest.mark.parametrize(
    'module', REFUSED, ids=lambda module: type(module).__name__
)
def test_modules_that_cannot_follow_are_named(module):
    module = copy.deepcopy(module)
    kind = type(module)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ModuleDict({'odd': module}))
    with pytest.raises(ConfigError, match=rf'1\.odd .*{kind.__name__}'):
        convert(net, SlimState())
    convert(net, SlimState(), strict=False)
    assert type(module) is kind
    assert type(net[0]) is SlimConv2d


def test_trusted_forward_is_swapped():
    class Trusted(nn.Conv2d):
        def forward(self, x):
            return super().forward(x)

    net = nn.Sequential(Trusted(3, 8, 1))
    convert(net, SlimState())
    assert isinstance(net[0], (Trusted, SlimConv2d))  # runs its own forward
    trust_forward(Trusted)
    net = nn.Sequential(Trusted(3, 8, 1))
    convert(net, SlimState())
    assert type(net[0]) is SlimConv2d


def test_rules_that_name_no_layer_are_refused():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    with pytest.raises(ConfigError, match=r"\['1', 'stem'\].*Sequential"):
        convert(net, SlimState(), {'1': MIDDLE, 'stem': MIDDLE, '0': MIDDLE})


def test_default_rule_holds_for_layers_not_named():
    net = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 1))
    state = SlimState()
    convert(net, state, {'1': LayerRule()}, default=LayerRule(fixed=True))
    state.set_width(0.25)
    x = torch.randn(1, 3, 4, 4)
    assert net[0](x).shape[1] == 64
    assert net(x).shape[1] == 16


def test_slim_layers_keep_their_state_and_rule():
    inner = nn.Sequential(nn.Conv2d(3, 64, 1))
    first, second = SlimState(), SlimState()
    convert(inner, first, {'0': MIDDLE})
    net = nn.Sequential(inner, nn.Conv2d(64, 64, 1))
    convert(net, second)
    assert inner[0].slim_state is first
    assert inner[0].slim_rule == MIDDLE
    assert net[1].slim_state is second


def test_sync_batch_norm_is_adopted():
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16))
    net[1].running_mean.uniform_()
    state = SlimState()
    convert(net, state)
    assert type(net[1]) is SlimBatchNorm2d
    running_mean = net[1].running_mean.clone()
    built = BuiltLayers(net)
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert type(net[1]) is nn.SyncBatchNorm
    assert built.adopt() == []
    assert type(net[1]) is SlimSyncBatchNorm
    assert net[1].slim_state is state
    state.set_width(0.5)
    x = torch.randn(2, 3, 5, 5)
    narrow = F.conv2d(x, net[0].weight[:8], net[0].bias[:8])
    expected = F.batch_norm(narrow, running_mean[:8], torch.ones(8))
    assert_close(net.eval()(x), expected)


def test_a_replaced_parent_is_noticed():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)))
    convert(net, SlimState())
    built = BuiltLayers(net)
    assert not built.adopt()
    net[0] = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Identity())
    assert built.adopt() == [('0.0', net[0][0]), ('0.1', net[0][1])]
    net[0] = nn.Identity()
    assert built.adopt() == [('0.0', None), ('0.1', None)]


class Frozen(nn.BatchNorm2d):
    """A batch norm that never trains."""

    def train(self, mode=True):
        return super().train(False)


def test_a_subclass_keeps_what_it_adds():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), Frozen(8))
    convert(net, SlimState())
    assert isinstance(net[1], Frozen) and isinstance(net[1], SlimLayer)
    assert not net.train()[1].training
    restore(net[1])
    assert type(net[1]) is Frozen
