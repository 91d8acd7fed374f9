import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    active_width,
    convert,
    set_width,
    verify_slicing,
)


def conv_bn(inputs, outputs, kernel=3, **options):
    return nn.Sequential(
        nn.Conv2d(
            inputs, outputs, kernel, padding=kernel // 2, bias=False, **options
        ),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 32)
        self.a = conv_bn(32, 32)
        self.b = conv_bn(32, 32, groups=32)
        self.down = conv_bn(32, 64, stride=2)
        self.drop = nn.Dropout()

    def forward(self, x):
        x = self.stem(x)
        x = x + self.b(self.a(x))
        return [x, self.drop(self.down(x))]


class Unequal(Residual):
    def forward(self, x):
        x = self.stem(x)
        return x + self.a(x)


class Concatenated(Residual):
    def __init__(self):
        super().__init__()
        self.mixed = nn.Conv2d(64, 32, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.mixed(torch.cat([self.a(x), self.b(x)], 1))


class Shuffled(Residual):
    def forward(self, x):
        x = self.stem(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(x.shape)
        return self.a(x)


class ShuffledOutput(Residual):
    def forward(self, x):
        return F.channel_shuffle(self.stem(x), 2)


class Flipped(Residual):
    def forward(self, x):
        return self.a(self.stem(x).flip(1))


class Rolled(Residual):
    """By a number of channels that does not follow the width."""

    def forward(self, x):
        return self.a(self.stem(x).roll(3, 1))


class RolledOutput(Residual):
    """The last layer is right, what is returned is not."""

    def forward(self, x):
        return self.stem(x).roll(3, 1)


class Sorted(Residual):
    """In an order that depends on the data."""

    def forward(self, x):
        return self.a(self.stem(x).sort(1).values)


class Shared(Residual):
    """One layer for an input that narrows and one that never does."""

    def forward(self, x):
        fixed = x.mean(1, keepdim=True).expand(-1, 32, -1, -1)
        return self.a(self.stem(x)), self.a(fixed)


class FewerOutputs(Residual):
    def forward(self, x):
        outputs = super().forward(x)
        return outputs if outputs[0].shape[1] == 32 else outputs[:1]


class FewerLayers(Residual):
    def forward(self, x):
        x = self.stem(x)
        return self.a(x) if x.shape[1] == 32 else x


class Video(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 16, (3, 5, 5), padding=(1, 2, 2))
        self.bn = nn.BatchNorm3d(16)
        self.out = nn.Conv3d(16, 32, 1)

    def forward(self, x):
        assert x.dim() == 5
        return {'out': self.out(F.relu(self.bn(self.stem(x))))}


class TwoBranches(nn.Module):
    """The second branch stays whole and comes in at the tail."""

    def __init__(self):
        super().__init__()
        self.slow = nn.Conv2d(3, 32, 3)
        self.fast = nn.Conv2d(3, 8, 3)
        self.fused = nn.Conv2d(40, 32, 1)

    def forward(self, x):
        return self.fused(torch.cat([self.slow(x), self.fast(x)], 1))


def slimmed(net, rules=None, **state):
    convert(net, SlimState(**state), rules)
    return net


FAST = {'fast': LayerRule(fixed=True)}


@pytest.mark.parametrize(
    'make, rules, state',
    [
        (Residual, None, {}),
        (Residual, None, {'max_width': 2.0}),
        (Residual, None, {'rounding': 'hardware'}),
        (Video, None, {}),
        (TwoBranches, None, {}),
        (TwoBranches, FAST, {}),
        (Concatenated, None, {}),
        (Shuffled, None, {}),
        (ShuffledOutput, None, {}),
        (Flipped, None, {}),
    ],
)
def test_good_networks_pass(make, rules, state):
    verify_slicing(slimmed(make(), rules, **state))


def test_residual_sum_of_different_widths_is_refused():
    rules = {'a.0': LayerRule(ratio=1 / 4), 'stem.0': LayerRule(ratio=1 / 2)}
    with pytest.raises(ConfigError, match='Unequal.*its forward fails'):
        verify_slicing(slimmed(Unequal(), rules))


def flattening(side):
    """A network for maps of one side, an eighth of the input's."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=8, padding=1),
        nn.Flatten(),
        nn.Linear(16 * side**2, 10),
    )


def test_flattening_another_resolution_is_refused():
    """A sliced network would take columns of other positions."""
    with pytest.raises(ConfigError, match='Sequential does not .*"2"'):
        verify_slicing(slimmed(flattening(7), {'2': LayerRule(fixed=True)}))


def test_a_network_of_a_single_size():
    """Of the two that are tried, 112 and 128 pixels."""
    net = slimmed(flattening(14), {'2': LayerRule(fixed=True)})
    assert verify_slicing(net).input_shape == (1, 3, 112, 112)


@pytest.mark.parametrize(
    'make, message',
    [
        (Rolled, r'layer "a\.0" \(SlimConv2d\)'),
        (RolledOutput, 'output 0'),
        (Sorted, r'not understood: sort'),
        (Shared, r'layer "a\.0" is shared'),
        (FewerOutputs, 'another number of outputs'),
        (FewerLayers, 'runs other layers'),
    ],
)
def test_bad_networks_are_named(make, message):
    pattern = rf'{make.__name__} cannot be slimmed.*{message}'
    with pytest.raises(ConfigError, match=pattern):
        verify_slicing(slimmed(make()))


@pytest.mark.parametrize('active', [0.5, 0.25])
def test_whatever_width_is_active(active):
    """A network alone at a width below its widest is as good."""
    net = slimmed(Residual())
    set_width(net, active)
    verify_slicing(net)
    assert net.stem[0].slim_state.width == active


def test_a_network_that_never_runs_is_not_blamed_on_slimming():
    net = slimmed(nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 1)))
    with pytest.raises(ConfigError) as error:
        verify_slicing(net)
    text = str(error.value)
    assert 'Sequential does not run at full width' in text
    assert 'layer "1"' in text and '\n' not in text


@pytest.mark.parametrize(
    'make', [threading.Lock, lambda: nn.Parameter(torch.ones(2)) * 2]
)
def test_a_network_that_cannot_be_copied(make):
    net = slimmed(Residual())
    net.kept = make()
    with pytest.raises(ConfigError, match='^Residual cannot be copied') as e:
        verify_slicing(net)
    assert '\n' not in str(e.value)


def test_nothing_is_changed():
    net = slimmed(Residual()).train()
    net.a.eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    random = torch.get_rng_state()
    verify_slicing(net)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in net.modules()] == modes
    assert net.stem[0].slim_state.width == 1.0
    assert not any(module._forward_hooks for module in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_network_without_convolution_is_refused():
    with pytest.raises(ConfigError, match='1 x 3 x H x W'):
        verify_slicing(slimmed(nn.Sequential(nn.Linear(8, 8))))


def test_too_few_frames_are_named():
    """A network that takes 20 frames at least, tried with 8 and 16."""
    net = nn.Sequential(nn.Conv3d(3, 8, (20, 1, 1)), nn.BatchNorm3d(8))
    convert(net, SlimState())
    with pytest.raises(
        ConfigError, match='3 x 8 x H x W or 1 x 3 x 16 x H x W: '
    ):
        verify_slicing(net)
    verify_slicing(net, frames=20)


def test_another_default_device():
    """It is the CPU that verifies, whatever new tensors are made on."""
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
    convert(net, SlimState())
    with torch.device('meta'):
        verify_slicing(net)


def test_a_network_that_stays_whole_is_refused():
    """Whole groups of 12 channels, in multiples of 8, are all of them."""
    net = nn.Sequential(nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 1, groups=2))
    convert(net, SlimState())
    with pytest.raises(ConfigError, match='0.3 every layer keeps all of its'):
        verify_slicing(net)


class Joined(nn.Module):
    """A sum of layers, of which one is rounded otherwise."""

    def __init__(self, channels=80):
        super().__init__()
        self.a = nn.Conv2d(3, channels, 1)
        self.b = nn.Conv2d(3, channels, 1)

    def forward(self, x):
        return self.a(x) + self.b(x)


def test_counts_that_fit_at_two_widths_alone_are_refused():
    """80 channels to multiples of 8 and of 4: alike at 0.3 and 0.7."""
    rules = dict(a=LayerRule(ratio=1 / 2), b=LayerRule(ratio=2, divisor=4))
    net = slimmed(Joined(), rules)
    for width in (0.3, 0.7):
        with active_width(net, width):
            net(torch.randn(1, 3, 4, 4))
    with pytest.raises(ConfigError, match='at width 0.05 its forward fails'):
        verify_slicing(net)


def test_a_layer_without_a_rule_rounds_as_what_it_is_added_to():
    """76 of 256 channels, in fours, where 80 were in eights."""
    net = slimmed(Joined(256), {'a': LayerRule(ratio=1 / 2)})
    verify_slicing(net)
    for width, channels in ((0.3, 76), (0.7, 180)):
        with active_width(net, width):
            assert net(torch.randn(1, 3, 4, 4)).shape[1] == channels


class Branching(nn.Module):
    """A layer more where 48 of 80 channels are active."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 80, 1), nn.Conv2d(80, 80, 1)

    def forward(self, image):
        first, second = self.a(image).chunk(2, 1)
        if first.shape[1] == 24:
            self.a(image)
        return self.b(torch.cat([second, first], 1))


def test_other_layers_at_other_widths_are_refused():
    with pytest.raises(ConfigError, match='at width 0.45 it runs other'):
        verify_slicing(slimmed(Branching()))


class Attention(nn.Module):
    """Positions are compared by channels that narrow, outside of layers."""

    def __init__(self, weight, stride=1):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride, 1)
        self.queries, self.keys = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)
        self.weight = nn.Parameter(weight)
        self.last = nn.Conv2d(32, 32, 1)

    def forward(self, x):
        x = self.stem(x)
        queries, keys = self.queries(x).flatten(2), self.keys(x).flatten(2)
        scores = (queries.mT @ keys).softmax(-1)
        seen = (x.flatten(2) @ scores.mT).view_as(x)
        return self.last(x + self.weight * seen)


@pytest.mark.parametrize('shape', [(), (1,), (1, 1, 1, 1)])
def test_a_branch_with_a_weight_of_zero_at_first_is_tried(shape):
    with pytest.raises(ConfigError, match='layer "last"'):
        verify_slicing(slimmed(Attention(torch.zeros(shape))))


def test_maps_of_a_single_place_hide_nothing():
    """32 pixels in strides of 32: a softmax over one place is always one."""
    with pytest.raises(ConfigError, match='layer "last"'):
        verify_slicing(slimmed(Attention(torch.ones(1), stride=32)))
