"""Any network of PyTorch in one call; torchvision's for examples."""

import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as zoo
from torch import nn
from torch.testing import assert_close

from mutualnet_mm.errors import ConfigError, UsageError
from mutualnet_mm.slimmable import (
    BatchNormCollector,
    LayerRule,
    SlimLayer,
    active_width,
    count_module_params,
    make_static,
    slim,
    slim_states,
    use_statistics,
)

# With a residual sum, attention, concatenations, and splits.
NETWORKS = {
    'resnet18': {},
    'mobilenet_v3_small': {},
    'squeezenet1_1': {},
    'densenet121': {},
    'regnet_y_400mf': {},
    'convnext_tiny': {},
}


def build(name, **options):
    torch.manual_seed(0)
    make = getattr(zoo, name)
    return make(weights=None, num_classes=10, **options).double().eval()


@pytest.mark.sweep(2)
@pytest.mark.parametrize('name', NETWORKS)
def test_networks_of_torchvision(name):
    """Stock at full width; static and sliced agree, with all outputs."""
    stock = build(name)
    net = slim(copy.deepcopy(stock))
    slim_states(net)[0].running_stats = True  # any will do
    assert [*net.state_dict()] == [*stock.state_dict()]
    x = torch.randn(1, 3, 64, 64, dtype=torch.double)
    with torch.no_grad():
        assert torch.equal(net(x), stock(x))
        with active_width(net, 0.5):
            sliced = net(x)
            number = count_module_params(net, x)
            make_static(net, x)
        assert_close(net(x), sliced, rtol=1e-10, atol=1e-10)
    assert sliced.shape == (1, 10)
    assert number == sum(p.numel() for p in net.parameters())
    assert number < 0.5 * sum(p.numel() for p in stock.parameters())


def test_equals_the_stock_network_built_narrow():
    """MobileNetV2 at 0.5, with the rules of the published code."""
    full, narrow = build('mobilenet_v2'), build('mobilenet_v2', width_mult=0.5)
    rules = {'features.18.0': LayerRule(fixed=True)}
    for name, block in full.features.named_children():
        if type(block).__name__ == 'InvertedResidual' and len(block.conv) == 4:
            rules[f'features.{name}.conv.0.0'] = LayerRule(ratio=6)
    weights = full.state_dict()
    for name, tensor in narrow.state_dict().items():
        tensor.copy_(weights[name][tuple(slice(n) for n in tensor.shape)])
    net = slim(full, rules=rules)
    slim_states(net)[0].running_stats = True  # the narrow network's, too
    x = torch.randn(1, 3, 64, 64, dtype=torch.double)
    with torch.no_grad(), active_width(net, 0.5):
        assert_close(net(x), narrow(x), rtol=1e-10, atol=1e-10)


def features():
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 64, 3))


@pytest.mark.parametrize('keep, channels', [(True, 64), (False, 32)])
def test_outputs_are_kept_or_narrow(keep, channels):
    net = slim(features(), keep_outputs=keep)
    with active_width(net, 0.5):
        assert net(torch.randn(1, 3, 9, 9)).shape[1] == channels


def test_a_shape_that_trying_does_not_find():
    net = nn.Sequential(nn.Flatten(0, 1), nn.BatchNorm2d(3), *features())
    with pytest.raises(ConfigError, match='does not run'):
        slim(copy.deepcopy(net))
    slim(net, input_shape=(2, 4, 3, 9, 9))


class Rolled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = features()

    def forward(self, x):
        return self.layers[1](self.layers[0](x).roll(1, 1))


def test_what_is_refused_is_as_before():
    net = Rolled()
    with pytest.raises(ConfigError, match='Rolled cannot be slimmed'):
        slim(net)
    assert not any(isinstance(m, SlimLayer) for m in net.modules())
    assert type(net.layers[0]) is nn.Conv2d
    assert 'slim_state' not in vars(net.layers[0])


class Scaled(nn.Module):
    """A vector along the channels of the output."""

    def __init__(self):
        super().__init__()
        self.layers, self.gamma = features(), nn.Parameter(torch.rand(64))

    def forward(self, x):
        return self.layers(x) * self.gamma.view(1, -1, 1, 1)


def test_outputs_behind_a_vector_are_kept():
    stock = Scaled()
    net = slim(copy.deepcopy(stock))
    x = torch.randn(1, 3, 9, 9)
    assert torch.equal(net(x), stock(x))
    with active_width(net, 0.5):
        assert net(x).shape[1] == 64


def test_a_network_without_layers_is_refused():
    with pytest.raises(ConfigError, match='ReLU has no layer that can narrow'):
        slim(nn.ReLU())


def test_running_statistics_are_not_a_narrow_network_s():
    net = slim(build('resnet18')).eval()
    x = torch.randn(4, 3, 32, 32, dtype=torch.double)
    with torch.no_grad():
        net(x)
        with active_width(net, 0.5):
            with pytest.raises(UsageError, match='BatchNormCollector'):
                net(x)
            with slim_states(net)[0].activate(0.5), pytest.raises(UsageError):
                net(x)
            # What costs nothing of them is counted.
            assert count_module_params(net, x) > 0
            static = copy.deepcopy(net)
            with pytest.raises(UsageError, match='"bn1" has no statistics'):
                make_static(static, x)
            assert isinstance(static.conv1, SlimLayer)
            collector = BatchNormCollector(net)
            with collector.watch():
                net(x)
            statistics = collector.finish()
            with use_statistics(net, statistics):
                expected = net(x)
            make_static(static, x, statistics=statistics)
        assert_close(static(x), expected)
    assert type(static.conv1) is nn.Conv2d


def test_nor_are_they_where_the_batch_norm_keeps_its_channels():
    """Behind a layer that narrows: what it normalises is another."""
    net = slim(
        nn.Sequential(
            nn.Conv2d(3, 32, 1), nn.Conv2d(32, 8, 1), nn.BatchNorm2d(8)
        )
    )
    x = torch.randn(4, 3, 9, 9)
    net(x)
    net.eval()(x)
    with torch.no_grad(), active_width(net, 0.5):
        with pytest.raises(UsageError, match='8 are active, runs at width 0'):
            net(x)
        with pytest.raises(UsageError, match='"2" has no statistics'):
            make_static(net, x)
        collector = BatchNormCollector(net)
        with collector.watch():
            expected = net(x)
        with use_statistics(net, collector.finish()):
            assert_close(net(x), expected, rtol=1e-3, atol=1e-3)


def test_batch_norms_that_keep_no_statistics_need_none():
    norm = nn.BatchNorm2d(32, track_running_stats=False)
    net = slim(nn.Sequential(nn.Conv2d(3, 32, 1), norm, nn.Conv2d(32, 8, 1)))
    x = torch.randn(4, 3, 9, 9)
    with torch.no_grad(), active_width(net.eval(), 0.5):
        hidden = net[0](x)
        wanted = F.batch_norm(hidden, None, None, training=True)
        assert_close(net[1](hidden), wanted)


@dataclass
class Scores:
    scores: torch.Tensor
    maps: list


class Returning(nn.Module):
    """A classifier that returns what a function makes of scores."""

    def __init__(self, returns):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 32, 3), nn.Linear(32, 20)
        self.returns = returns

    def forward(self, x):
        x = self.conv(x)
        return self.returns(self.fc(x.mean((2, 3))), x)


def test_outputs_in_a_data_class_are_kept():
    net = slim(Returning(lambda scores, x: Scores(scores, [x])))
    with active_width(net, 0.5):
        out = net(torch.randn(1, 3, 9, 9))
    assert out.scores.shape[1] == 20
    assert out.maps[0].shape[1] == 32


@pytest.mark.parametrize(
    'place',
    [
        lambda x: x.view(1, 5, 4, 7, 7),
        lambda x: x.view(1, 4, -1, 7, 7),
        lambda x: x.permute(0, 2, 3, 1).reshape(1, -1, 4),
    ],
    ids=['anchors', 'anchors last', 'rows'],
)
def test_outputs_on_several_axes_are_kept(place):
    """As detection heads return boxes: of anchors, four numbers each."""
    net = slim(Mapped(nn.Conv2d(32, 20, 1), place), (1, 3, 7, 7))
    x = torch.randn(1, 3, 7, 7)
    with torch.no_grad(), active_width(net, 0.5):
        out, hidden = net(x), net.conv(x)
        weight, bias = net.last.weight[:, :16], net.last.bias
        assert_close(out, place(F.conv2d(hidden, weight, bias)))


class Mapped(nn.Module):
    def __init__(self, last, place):
        super().__init__()
        self.conv, self.last, self.place = nn.Conv2d(3, 32, 1), last, place

    def forward(self, x):
        return self.place(self.last(self.conv(x)))


@pytest.mark.parametrize(
    'also',
    [
        lambda scores: scores > 0,
        lambda scores: scores.mean(),
        lambda scores: torch.tensor(3),
        lambda scores: scores[:0],
        lambda scores: torch.zeros(0, dtype=torch.long),
    ],
    ids=['mask', 'mean', 'number', 'no scores', 'no classes'],
)
def test_outputs_that_have_no_channels(also):
    net = slim(Returning(lambda scores, _: (scores, also(scores))))
    with torch.no_grad(), active_width(net, 0.5):
        scores, other = net(torch.randn(1, 3, 9, 9))
    assert scores.shape == (1, 20)
    assert torch.equal(other, also(scores))


def test_a_mask_that_follows_other_channels_is_refused():
    net = Returning(lambda scores, x: (scores, x > x.mean(1, True)))
    with pytest.raises(ConfigError, match='result of output 1 is not that'):
        slim(net, keep_outputs=False)


def test_outputs_that_nobody_knows_are_not_left_to_narrow():
    def cumulated(scores, _):
        return scores.logcumsumexp(1)

    with pytest.raises(ConfigError, match='output 0 .*behind logcumsumexp'):
        slim(Returning(cumulated))
    rules = {'fc': LayerRule(fixed=True)}
    net = slim(Returning(cumulated), rules=rules, keep_outputs=False)
    with active_width(net, 0.5):
        assert net(torch.randn(1, 3, 9, 9)).shape[1] == 20


def test_a_network_that_returns_no_tensors():
    with pytest.raises(ConfigError, match='returns a str in which no tensor'):
        slim(Returning(lambda scores, _: 'seven'))


@pytest.mark.parametrize(
    'network, x',
    [
        (
            nn.Sequential(nn.Conv1d(3, 32, 3), nn.Conv1d(32, 16, 3)),
            torch.randn(2, 3, 24),
        ),
        (
            nn.Sequential(nn.Linear(24, 32), nn.GELU(), nn.Linear(32, 16)),
            torch.randn(2, 7, 24),
        ),
    ],
    ids=['sequences', 'tokens'],
)
@pytest.mark.parametrize('keep', [True, False])
def test_channels_of_three_axes(network, x, keep):
    axis = 1 if isinstance(network[0], nn.Conv1d) else -1
    net = slim(copy.deepcopy(network), x.shape, keep_outputs=keep)
    with torch.no_grad(), active_width(net, 0.5):
        out = net(x)
        assert out.shape[axis] == (16 if keep else 8)
        hidden = network[0](x).narrow(axis, 0, 16)
        hidden = hidden if axis == 1 else nn.functional.gelu(hidden)
        last = copy.deepcopy(network[-1])
        last.weight.data = last.weight[: out.shape[axis], :16]
        last.bias.data = last.bias[: out.shape[axis]]
        if axis == 1:
            last.in_channels = 16
        assert_close(out, last(hidden))


@pytest.mark.parametrize('shape', [(1, 4, 32, 32), 32, (1, 0, 8, 8), 'large'])
@pytest.mark.parametrize('keep', [True, False])
def test_a_wrong_shape_is_named(shape, keep):
    net = features()
    with pytest.raises(ConfigError, match='input_shape='):
        slim(net, input_shape=shape, keep_outputs=keep)
    assert type(net[0]) is nn.Conv2d


def test_a_slim_network_is_refused():
    net = nn.Sequential(slim(features()))
    with pytest.raises(ConfigError, match=r'layer "0\.0" is slim already'):
        slim(net, max_width=2.0)


class Norm(nn.Module):
    """A norm that holds its vectors itself."""

    def __init__(self, norm):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(32))
        self.bias = nn.Parameter(torch.zeros(32))
        self.norm = norm

    def forward(self, x):
        return self.norm(x, self.weight, self.bias)


def own_norm(norm):
    return nn.Sequential(nn.Conv2d(3, 32, 3), Norm(norm), nn.Conv2d(32, 8, 1))


def test_vectors_of_functional_norms():
    def instance(x, weight, bias):
        return nn.functional.instance_norm(x, None, None, weight, bias)

    stock = own_norm(instance)
    stock[1].weight.data.uniform_(0.5, 1.5)
    net = slim(copy.deepcopy(stock))
    x = torch.randn(1, 3, 9, 9)
    with torch.no_grad(), active_width(net, 0.5):
        hidden = stock[1](stock[0](x))[:, :16]
        wanted = nn.functional.conv2d(
            hidden, stock[2].weight[:, :16], stock[2].bias
        )
        assert_close(net(x), wanted)


def test_groups_of_functional_norms_are_refused():
    """As many groups of fewer channels are not those of the full network."""

    def grouped(x, weight, bias):
        return nn.functional.group_norm(x, 4, weight, bias)

    with pytest.raises(ConfigError, match='cannot be slimmed'):
        slim(own_norm(grouped))


class Conv(nn.Conv2d):
    """As a stock one; other code may ask for its class."""


def test_classes_come_back_where_slim_fails():
    net = nn.Sequential(Conv(3, 32, 3), nn.Conv2d(32, 64, 3))
    net.forward = lambda x: net[1](net[0](x).flip(1))
    with pytest.raises(ConfigError):
        slim(net)
    assert type(net[0]) is Conv
    assert {'slim_rule', 'slim_inputs'}.isdisjoint(vars(net[0]))
