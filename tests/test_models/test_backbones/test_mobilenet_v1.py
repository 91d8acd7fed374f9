"""MobileNetV1, and its slices against narrow networks in plain PyTorch."""

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import ConfigError
from mutualnet_mm.slimmable import active_width, count_module_macs

EVERY = (0, 1, 2, 3, 4)
NAME = 'mutualnet_mm.MobileNetV1'


@pytest.fixture
def build(enter_scope, plain):
    def make(type='mutualnet_mm.SlimmableMobileNetV1', **kwargs):
        enter_scope('mmpretrain')
        return plain.randomise(MODELS.build(dict(type=type, **kwargs))).eval()

    return make


@pytest.mark.sweep(4)
@pytest.mark.parametrize('width', [0.25, 0.35, 0.7, 0.95])
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_sliced_equals_narrow(build, plain, width, training):
    full = build(out_indices=EVERY).double()
    narrow = plain.mobilenet_v1(lambda c: plain.rounded(c * width)).double()
    plain.fill(narrow, full.state_dict())
    full.train(training), narrow.train(training)
    x = torch.randn(2, 3, 64, 64).double()
    with torch.no_grad(), active_width(full, width):
        outputs = full(x)
        expected = narrow(x)[1:]
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    'settings, channels, depth',
    [
        (dict(), lambda c: c, 1),
        (dict(widen_factor=0.75), lambda c: int(0.75 * c), 1),
        (dict(depth_factor=1.5), lambda c: c, 1.5),
    ],
    ids=['plain', 'widened', 'deepened'],
)
def test_full_width_is_the_stock_network(
    build, plain, settings, channels, depth
):
    net, stock = build(**settings), build(NAME, **settings)
    x = torch.randn(1, 3, 64, 64)
    stock.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(net(x)[0], stock(x)[0])
    plain.randomise(stock)
    net.load_state_dict(stock.state_dict(), strict=True)
    assert torch.equal(net(x)[0], stock(x)[0])
    assert isinstance(net, type(stock))
    alone = plain.mobilenet_v1(channels, depth).eval()
    plain.fill(alone, net.state_dict())
    torch.testing.assert_close(net(x)[0], alone(x)[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    'factor, millions, mult_adds',
    [(1.0, 4.2, 569), (0.75, 2.6, 325), (0.5, 1.3, 149), (0.25, 0.5, 41)],
)
def test_published_size(enter_scope, factor, millions, mult_adds):
    """Table 6 of Howard et al. (2017), which counts the classifier too."""
    enter_scope('mmpretrain')
    net = MODELS.build(dict(type=NAME, widen_factor=factor))
    features = int(1024 * factor)
    parameters = sum(p.numel() for p in net.parameters())
    parameters += (features + 1) * 1000
    assert round(parameters / 1e6, 1) == millions
    if factor == 1.0:  # as other implementations have it
        assert parameters == 4_231_976
    macs = count_module_macs(net, torch.empty(1, 3, 224, 224))
    macs += features * 1000
    assert macs / 1e6 == pytest.approx(mult_adds, abs=0.6)


def test_layers(build):
    net = build(NAME, out_indices=EVERY)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    # With the classifier 28 layers, as published; no convolution has a bias.
    assert len(convs) == 27 and all(c.bias is None for c in convs)
    assert sum(c.groups > 1 for c in convs) == 13
    acts = {type(m) for m in net.modules() if 'ReLU' in type(m).__name__}
    assert acts == {nn.ReLU6}
    shapes = [tuple(m.shape[1:]) for m in net(torch.randn(1, 3, 224, 224))]
    assert shapes == [
        (64, 112, 112),
        (128, 56, 56),
        (256, 28, 28),
        (512, 14, 14),
        (1024, 7, 7),
    ]


def test_init(enter_scope):
    """Normal by fan-out for all convolutions, as in the published code."""
    enter_scope('mmpretrain')
    net = MODELS.build(dict(type=NAME))
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
    'factor, blocks',
    [
        (1.0, [1, 2, 2, 6, 2]),
        (1.4, [2, 3, 3, 9, 3]),
        (0.3, [1, 1, 1, 2, 1]),
        (1.1666667, [2, 3, 3, 7, 3]),  # 7 blocks are meant, not 7.0000002
    ],
)
def test_depth_factor(build, factor, blocks):
    net = build(NAME, depth_factor=factor)
    assert [len(getattr(net, f'layer{i}')) for i in range(1, 6)] == blocks


@pytest.mark.parametrize('indices', [(0, 4), (2,)])
def test_out_indices(build, indices):
    net, x = build(NAME, out_indices=indices), torch.randn(1, 3, 64, 64)
    assert [m.shape[1] for m in net(x)] == [
        (64, 128, 256, 512, 1024)[i] for i in indices
    ]


@pytest.mark.parametrize(
    'settings, value',
    [
        (dict(widen_factor=0), 'widen_factor=0'),
        (dict(widen_factor=-1.0), 'widen_factor=-1.0'),
        (dict(widen_factor=float('nan')), 'widen_factor=nan'),
        (dict(depth_factor=0.0), 'depth_factor=0.0'),
        (dict(out_indices=(0, 5)), 'out_indices=(0, 5)'),
        (dict(out_indices=(-1,)), 'out_indices=(-1,)'),
    ],
)
@pytest.mark.parametrize('kind', ['MobileNetV1', 'SlimmableMobileNetV1'])
def test_wrong_arguments(build, kind, settings, value):
    with pytest.raises(ConfigError) as error:
        build(f'mutualnet_mm.{kind}', **settings)
    assert value in str(error.value) and '\n' not in str(error.value)


@pytest.mark.sweep(2)
@pytest.mark.parametrize('width', [2.0, 1.6, 1.05, 1.0])
def test_widths_above_one(build, plain, width):
    """Built at twice the base width, of which ``width`` is a multiple."""
    full = build(widen_factor=2.0, max_width=2.0, out_indices=EVERY).double()
    narrow = plain.mobilenet_v1(lambda c: plain.rounded(c * width)).double()
    plain.fill(narrow, full.state_dict()).eval()
    x = torch.randn(1, 3, 48, 48).double()
    with torch.no_grad(), active_width(full, width):
        outputs = full(x)
        expected = narrow(x)[1:]
    for ours, theirs in zip(outputs, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    if width == 1.0:
        channels = [m.shape[1] for m in outputs]
        assert channels == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize('rounding', ['paper', 'hardware'])
def test_multiples_of_eight(build, rounding):
    """All layers are plain: both policies are one."""
    net = build(rounding=rounding)
    seen = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda module, args, out: seen.append(out.shape[1])
            )
    with torch.no_grad(), active_width(net, 0.33):
        net(torch.randn(1, 3, 32, 32))
    assert len(seen) == 27 and not any(size % 8 for size in seen)
    assert seen[0] == 16 and seen[-1] == 336  # of 10.56 and 337.92
