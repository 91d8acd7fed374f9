"""WideResNet, and its slices against narrow networks in plain PyTorch."""

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import ConfigError
from mutualnet_mm.slimmable import active_width, count_module_macs

EVERY = (0, 1, 2)
NAME = 'mutualnet_mm.WideResNet'


@pytest.fixture
def build(enter_scope, plain):
    def make(type='mutualnet_mm.SlimmableWideResNet', **kwargs):
        enter_scope('mmpretrain')
        config = dict(dict(depth=10, widen_factor=2), type=type)
        return plain.randomise(MODELS.build(dict(config, **kwargs))).eval()

    return make


def maps(outputs):
    """What WideResNet returns of conv1, three groups, norm and ReLU."""
    return [outputs[1], outputs[2], outputs[5]]


@pytest.mark.sweep(8)
@pytest.mark.parametrize('width', [0.25, 0.7, 0.95, 1.0])
@pytest.mark.parametrize('depth, widen', [(10, 2), (16, 4), (10, 1)])
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_sliced_equals_narrow(build, plain, width, depth, widen, training):
    shape = dict(depth=depth, widen_factor=widen)
    full = build(**shape, drop_rate=0.3, out_indices=EVERY).double()
    narrow = plain.wide_resnet(
        lambda c: plain.rounded(c * width), depth, widen, drop=0.3
    ).double()
    plain.fill(narrow, full.state_dict())
    full.train(training), narrow.train(training)
    x = torch.randn(2, 3, 32, 32).double()
    with torch.no_grad(), active_width(full, width):
        torch.manual_seed(0)  # of the dropout
        outputs = full(x)
        torch.manual_seed(0)
        expected = maps(narrow(x))
    for ours, theirs in zip(outputs, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize('widen', [1, 2, 1.5])
def test_full_width_is_the_stock_network(build, plain, widen):
    net, stock = build(widen_factor=widen), build(NAME, widen_factor=widen)
    x = torch.randn(1, 3, 32, 32)
    stock.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(net(x)[0], stock(x)[0])
    plain.randomise(stock)
    net.load_state_dict(stock.state_dict(), strict=True)
    assert torch.equal(net(x)[0], stock(x)[0])
    assert isinstance(net, type(stock))
    alone = plain.wide_resnet(int, widen=widen).eval()
    plain.fill(alone, net.state_dict())
    torch.testing.assert_close(net(x)[0], alone(x)[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    'depth, widen, millions', [(28, 10, 36.5), (16, 8, 11.0), (40, 4, 8.9)]
)
def test_published_size(enter_scope, depth, widen, millions):
    """Of Zagoruyko and Komodakis (2016), for CIFAR-10."""
    enter_scope('mmpretrain')
    with torch.device('meta'):  # nothing to compute, only to count
        net = MODELS.build(dict(type=NAME, depth=depth, widen_factor=widen))
    parameters = sum(p.numel() for p in net.parameters())
    parameters += (64 * widen + 1) * 10
    # Printed to one digit, 8.95 million as 8.9.
    assert parameters / 1e6 == pytest.approx(millions, abs=0.06)
    if depth == 28:  # as other implementations have it
        assert parameters == 36_479_194
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    shortcuts = [c for c in convs if c.kernel_size == (1, 1)]
    # The name counts all convolutions, the three shortcuts too.
    assert len(convs) == depth and len(shortcuts) == 3
    assert all(c.bias is None for c in convs)


def test_default_is_wrn_28_10(enter_scope):
    enter_scope('mmpretrain')
    with torch.device('meta'):
        net = MODELS.build(dict(type=NAME))
    found = count_module_macs(net, torch.empty(1, 3, 32, 32))
    # By hand, with everything in units of 3 x 3 x 1024 positions: groups of
    # 160, 320, 640 channels at 32, 16, 8 pixels cost 160 ** 2 a layer each.
    layers = 16 * 3 + 16 * 160 + 7 * 160**2
    layers += 2 * (160 * 320 / 4 + 7 * 160**2)
    shortcuts = (16 * 160 + 160 * 320 / 4 + 320 * 640 / 16) / 9
    assert found == round(9 * 1024 * (layers + shortcuts))
    assert found / 1e9 == pytest.approx(5.2, abs=0.05)  # as published


def test_shapes(build):
    net, x = build(NAME, out_indices=EVERY), torch.randn(1, 3, 32, 32)
    shapes = [tuple(m.shape[1:]) for m in net(x)]
    assert shapes == [(32, 32, 32), (64, 16, 16), (128, 8, 8)]
    assert [len(build(NAME, out_indices=i)(x)) for i in [(1,), (0, 2)]] == [
        1,
        2,
    ]
    grey = build(NAME, in_channels=1)
    assert grey(torch.randn(1, 1, 28, 28))[0].shape == (1, 128, 7, 7)


def test_init(enter_scope):
    """Normal by fan-out, as published."""
    enter_scope('mmpretrain')
    net = MODELS.build(dict(type=NAME, depth=10, widen_factor=4))
    net.init_weights()
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] ** 2 * layer.out_channels
            found = layer.weight.std().item()
            error = 4 / layer.weight.numel() ** 0.5  # 4 sigma and more
            expected = (2 / fan_out) ** 0.5
            assert found == pytest.approx(expected, rel=error), name
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and (layer.bias == 0).all()


@pytest.mark.parametrize(
    'settings, value',
    [
        (dict(depth=29), 'depth=29'),
        (dict(depth=4), 'depth=4'),
        (dict(depth=-2), 'depth=-2'),
        (dict(out_indices=(3,)), 'out_indices=(3,)'),
        (dict(out_indices=(-1,)), 'out_indices=(-1,)'),
    ],
)
@pytest.mark.parametrize('kind', ['WideResNet', 'SlimmableWideResNet'])
def test_wrong_arguments(build, kind, settings, value):
    with pytest.raises(ConfigError) as error:
        build(f'mutualnet_mm.{kind}', **settings)
    assert value in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('factor', [0, -1.0, 0.01, float('inf'), '2'])
def test_wrong_width(build, factor):
    with pytest.raises(ConfigError, match=f'widen_factor={factor!r}'):
        build(NAME, widen_factor=factor)


@pytest.mark.parametrize('rounding', ['paper', 'hardware'])
def test_multiples_of_eight(build, rounding):
    """All layers are plain: both policies are one."""
    net = build(widen_factor=4, rounding=rounding)
    seen = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda module, args, out: seen.append(out.shape[1])
            )
    with torch.no_grad(), active_width(net, 0.33):
        net(torch.randn(1, 3, 32, 32))
    # 5.28, 21.12, 42.24 and 84.48 rounded, with the shortcuts.
    assert seen == [8, 24, 24, 24, 40, 40, 40, 88, 88, 88]


def test_widths_above_one(build):
    """Built twice as wide, stem and all; 1.0x is the base network."""
    net = build(widen_factor=4, stem_channels=32, max_width=2.0)
    base = build(NAME, widen_factor=2)
    sizes = [m.out_channels for m in base.modules() if is_conv(m)]
    seen = []
    for layer in filter(is_conv, net.modules()):
        layer.register_forward_hook(
            lambda m, args, out: seen.append(out.shape[1])
        )
    with torch.no_grad(), active_width(net, 1.0):
        net(torch.randn(1, 3, 32, 32))
    assert sorted(seen) == sorted(sizes)


def is_conv(module):
    return isinstance(module, nn.Conv2d)


@pytest.mark.parametrize('value', [4, (3,), 'a'])
def test_wrong_out_indices(build, value):
    with pytest.raises(ConfigError, match='out_indices='):
        build(NAME, out_indices=value)
