"""Any network of PyTorch in one call; torchvision's for examples."""

import copy

import pytest
import torch
import torchvision.models as zoo
from torch import nn
from torch.testing import assert_close

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    LayerRule,
    SlimLayer,
    active_width,
    count_module_params,
    make_static,
    slim,
)

# With a residual sum, attention, concatenations, and splits.
NETWORKS = {
    'resnet18': {},
    'mobilenet_v3_small': {},
    'squeezenet1_1': {},
    'densenet121': {},
    'regnet_y_400mf': {},
}


def build(name, **options):
    torch.manual_seed(0)
    make = getattr(zoo, name)
    return make(weights=None, num_classes=10, **options).double().eval()


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_of_torchvision(name):
    """Stock at full width; static and sliced agree, with all outputs."""
    stock = build(name)
    net = slim(copy.deepcopy(stock))
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
