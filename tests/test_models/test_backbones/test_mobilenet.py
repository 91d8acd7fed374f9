"""Sliced MobileNetV2 and V3 against narrow networks in plain PyTorch."""

from collections import OrderedDict

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm.slimmable import active_width

# Tables 1 and 2 of Howard et al. (2019): kernel, expanded, output channels,
# squeeze-and-excite, h-swish (else ReLU), stride.
LARGE = [
    (3, 16, 16, 0, 0, 1),
    (3, 64, 24, 0, 0, 2),
    (3, 72, 24, 0, 0, 1),
    (5, 72, 40, 1, 0, 2),
    (5, 120, 40, 1, 0, 1),
    (5, 120, 40, 1, 0, 1),
    (3, 240, 80, 0, 1, 2),
    (3, 200, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1),
    (3, 480, 112, 1, 1, 1),
    (3, 672, 112, 1, 1, 1),
    (5, 672, 160, 1, 1, 2),
    (5, 960, 160, 1, 1, 1),
    (5, 960, 160, 1, 1, 1),
]
SMALL = [
    (3, 16, 16, 1, 0, 2),
    (3, 72, 24, 0, 0, 2),
    (3, 88, 24, 0, 0, 1),
    (5, 96, 40, 1, 1, 2),
    (5, 240, 40, 1, 1, 1),
    (5, 240, 40, 1, 1, 1),
    (5, 120, 48, 1, 1, 1),
    (5, 144, 48, 1, 1, 1),
    (5, 288, 96, 1, 1, 2),
    (5, 576, 96, 1, 1, 1),
    (5, 576, 96, 1, 1, 1),
]


class SqueezeExcite(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        # mmcv's names: each convolution is the only layer of a module.
        self.conv1 = nn.Module()
        self.conv1.conv = nn.Conv2d(channels, squeezed, 1)
        self.conv2 = nn.Module()
        self.conv2.conv = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        scale = self.conv1.conv(x.mean((2, 3), keepdim=True)).relu()
        return x * nn.functional.hardsigmoid(self.conv2.conv(scale))


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


@pytest.fixture
def mobilenet_v3(plain):
    """Make MobileNetV3; ``narrow`` maps every channel of the tables."""

    def make(narrow, table):
        def unit(*args, act=nn.Hardswish):
            return plain.unit(*args, act=act, eps=1e-3)

        stages = OrderedDict(layer0=unit(3, narrow(16), 3, 2))
        inputs = 16
        for i, (size, mid, outputs, excite, hswish, stride) in enumerate(
            table, 1
        ):
            act, inner = nn.Hardswish if hswish else nn.ReLU, narrow(mid)
            block = OrderedDict()
            if mid != inputs:
                block['expand_conv'] = unit(narrow(inputs), inner, 1, act=act)
            block['depthwise_conv'] = unit(
                inner, inner, size, stride, inner, act=act
            )
            if excite:
                squeezed = narrow(plain.rounded(mid // 4))
                block['se'] = SqueezeExcite(inner, squeezed)
            block['linear_conv'] = unit(inner, narrow(outputs), 1, act=None)
            # Decided by the table: widths that round alike add no shortcut.
            kind = nn.Sequential
            if stride == 1 and inputs == outputs:
                kind = Residual
            stages[f'layer{i}'] = kind(block)
            inputs = outputs
        last = unit(narrow(inputs), narrow(table[-1][1]), 1)
        stages[f'layer{len(table) + 1}'] = last
        return plain.Stages(stages)

    return make


CASES = {
    'v2': ('MobileNetV2', dict()),
    'v3-large': ('MobileNetV3', dict(arch='large')),
    'v3-small': ('MobileNetV3', dict(arch='small')),
}


@pytest.fixture
def build(enter_scope, plain):
    def make(case, kind='mutualnet_mm.Slimmable{}', **kwargs):
        enter_scope('mmpretrain')
        name, settings = CASES[case]
        config = dict(type=kind.format(name), **settings)
        net = plain.randomise(MODELS.build(dict(config, **kwargs)))
        net.eval()  # not chained: the stock ``train`` returns nothing
        return net

    return make


@pytest.fixture
def build_narrow(plain, mobilenet_v3):
    def make(case, width, hidden=None):
        def narrow(channels):
            return plain.rounded(channels * width)

        if case == 'v2':
            return plain.mobilenet_v2(narrow, hidden)
        return mobilenet_v3(narrow, LARGE if case == 'v3-large' else SMALL)

    return make


@pytest.mark.sweep(6)
@pytest.mark.parametrize('width', [0.25, 0.63, 0.9, 1.0])
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_sliced_equals_narrow(
    build, build_narrow, plain, case, width, training
):
    narrow = build_narrow(case, width).double()
    # All stages; V2 counts them without the stem.
    stages = range(len(narrow) - (case == 'v2'))
    full = build(case, out_indices=tuple(stages)).double()
    plain.fill(narrow, full.state_dict())
    full.train(training), narrow.train(training)
    x = torch.randn(2, 3, 64, 64).double()
    state = full.slim_state  # as subnets are trained: statistics stay
    with torch.no_grad(), state.activate(width, track_stats=False):
        outputs = full(x)
        expected = narrow(x)[-len(stages) :]
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize('case', CASES)
def test_full_width_is_the_stock_network(build, plain, case):
    net, stock = build(case), build(case, 'mmpretrain.{}')
    x = torch.randn(1, 3, 64, 64)
    stock.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(net(x)[-1], stock(x)[-1])
    plain.randomise(stock)
    net.load_state_dict(stock.state_dict(), strict=True)
    assert torch.equal(net(x)[-1], stock(x)[-1])
    assert isinstance(net, type(stock))


def recorded(net, width):
    """Output channels of every convolution by name, at ``width``."""
    seen = {}
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda module, args, out, name=name: seen.update(
                    {name: out.shape[1]}
                )
            )
    x = torch.randn(1, 3, 32, 32).to(next(net.parameters()))
    with torch.no_grad(), active_width(net, width):
        net(x)
    return seen


@pytest.mark.parametrize('case', CASES)
def test_hardware_rounding(build, case):
    seen = recorded(build(case, rounding='hardware'), 0.33)
    assert len(seen) > 30
    assert not {n: size for n, size in seen.items() if size % 8}


def test_hidden_layers_of_v2(build, build_narrow, plain):
    """The policies differ there: 6 x round(0.33 x 64) or round(0.33 x 384)."""
    name = 'layer5.0.conv.1.conv'
    assert recorded(build('v2'), 0.33)[name] == 6 * 24
    full = build('v2', rounding='hardware').double()
    assert recorded(full, 0.33)[name] == 128
    narrow = build_narrow(
        'v2', 0.33, lambda inputs: plain.rounded(6 * inputs * 0.33)
    ).double()
    plain.fill(narrow.eval(), full.state_dict())
    x = torch.randn(1, 3, 64, 64).double()
    with torch.no_grad(), active_width(full, 0.33):
        torch.testing.assert_close(full(x)[0], narrow(x)[-1])


def test_last_layer_of_v2_is_whole(build):
    seen = recorded(build('v2'), 0.25)
    assert seen['conv2.conv'] == 1280 and seen['layer7.0.conv.2.conv'] == 80


@pytest.mark.parametrize('arch, squeezed', [('large', 240), ('small', 144)])
def test_squeeze_of_v3_follows_the_width(build, arch, squeezed):
    net = build(f'v3-{arch}')
    name = f'layer{15 if arch == "large" else 11}.se.conv1.conv'
    assert recorded(net, 1.0)[name] == squeezed
    assert recorded(net, 0.5)[name] == squeezed // 2
    assert recorded(net, 0.25)[name] == {240: 64, 144: 40}[squeezed]


def test_widths_above_one(build, plain):
    """Of V2 built twice as wide; the last layer is always that wide."""
    full = build('v2', widen_factor=2.0, max_width=2.0, out_indices=(6, 7))
    full = full.double()
    for width in (1.6, 1.0):
        narrow = plain.mobilenet_v2(lambda c, w=width: plain.rounded(c * w))
        narrow.conv2 = plain.unit(plain.rounded(320 * width), 2560, 1)
        plain.fill(narrow.double().eval(), full.state_dict())
        x = torch.randn(1, 3, 64, 64).double()
        with torch.no_grad(), active_width(full, width):
            for ours, theirs in zip(full(x), narrow(x)[-2:]):
                torch.testing.assert_close(ours, theirs)
    assert theirs.shape[1] == 2560 and narrow(x)[-2].shape[1] == 320
