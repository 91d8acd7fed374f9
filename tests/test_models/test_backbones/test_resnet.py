"""Sliced ResNets equal narrow ones, built here from plain PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm.slimmable import active_width

WIDTHS = (0.25, 0.63, 0.9)
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
BASE = 24  # channels where the stock networks have 64
THIN = dict(stem_channels=BASE, base_channels=BASE)


def rounded(value):
    """The published rule: to a multiple of 8, not below 90 %."""
    result = max(8, int(value + 4) // 8 * 8)
    if result < 0.9 * value:
        result += 8
    return result


def narrow_channels(depth, width):
    """Channels of the stem, and (inner, outer) of every stage."""
    levels = [BASE * 2**i for i in range(4)]
    if depth == 18:
        outer = [rounded(c * width) for c in levels]
        return rounded(BASE * width), list(zip(outer, outer))
    outer = [rounded(4 * c * width) for c in levels]
    inner = [c // 4 for c in outer]
    return rounded(4 * BASE * width) // 4, list(zip(inner, outer))


class Block(nn.Module):
    """A residual block with the stock names (mmpretrain, 'pytorch' style)."""

    def __init__(self, inputs, inner, outer, stride, bottleneck):
        super().__init__()
        if bottleneck:
            shapes = [(inputs, inner, 1), (inner, inner, 3), (inner, outer, 1)]
            strides = [1, stride, 1]
        else:
            shapes = [(inputs, inner, 3), (inner, outer, 3)]
            strides = [stride, 1]
        self.number = len(shapes)
        for i, ((a, b, kernel), step) in enumerate(zip(shapes, strides), 1):
            conv = nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False)
            setattr(self, f'conv{i}', conv)
            setattr(self, f'bn{i}', nn.BatchNorm2d(b))
        self.downsample = None
        if stride != 1 or inputs != outer:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outer, 1, stride, bias=False),
                nn.BatchNorm2d(outer),
            )

    def forward(self, x):
        out = x
        for i in range(1, self.number + 1):
            out = getattr(self, f'conv{i}')(out)
            out = getattr(self, f'bn{i}')(out)
            if i < self.number:
                out = out.relu()
        if self.downsample is not None:
            x = self.downsample(x)
        return (out + x).relu()


class NarrowResNet(nn.Module):
    def __init__(self, depth, width):
        super().__init__()
        channels, stages = narrow_channels(depth, width)
        self.conv1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for i, (inner, outer) in enumerate(stages):
            blocks = []
            for j in range(BLOCKS[depth][i]):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(
                    Block(channels, inner, outer, stride, depth == 50)
                )
                channels = outer
            setattr(self, f'layer{i + 1}', nn.Sequential(*blocks))

    def forward(self, x):
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        outputs = []
        for i in range(1, 5):
            x = getattr(self, f'layer{i}')(x)
            outputs.append(x)
        return outputs


def fill(narrow, full):
    """Copy the leading part of every tensor of the full network."""
    source = full.state_dict()
    assert narrow.state_dict().keys() == source.keys()
    with torch.no_grad():
        for name, tensor in narrow.state_dict().items():
            part = tuple(slice(size) for size in tensor.shape)
            tensor.copy_(source[name][part])


def randomise_batch_norms(net):
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_var):
                nn.init.uniform_(tensor, 0.3, 1.0)
            nn.init.normal_(layer.running_mean, std=0.3)


@pytest.fixture
def build(enter_scope):
    def make(type='mutualnet_mm.SlimmableResNet', **kwargs):
        enter_scope('mmpretrain')
        net = MODELS.build(dict(type=type, **kwargs))
        randomise_batch_norms(net)
        net.eval()
        return net

    return make


@pytest.mark.sweep(5)
@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_sliced_equals_narrow(build, depth, width, training):
    full = build(depth=depth, out_indices=(0, 1, 2, 3), **THIN).double()
    narrow = NarrowResNet(depth, width).double()
    fill(narrow, full)
    full.train(training), narrow.train(training)
    x = torch.randn(2, 3, 64, 64).double()
    with torch.no_grad(), active_width(full, width):
        outputs = full(x)
    for ours, theirs in zip(outputs, narrow(x)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize('depth', [18, 50])
def test_full_width_is_the_stock_network(build, depth):
    net = build(depth=depth, **THIN)
    stock = build('ResNet', depth=depth, **THIN)
    stock.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(net(x)[-1], stock(x)[-1])
    randomise_batch_norms(stock)
    net.load_state_dict(stock.state_dict(), strict=True)
    assert torch.equal(net(x)[-1], stock(x)[-1])
    assert isinstance(net, type(stock))


@pytest.mark.parametrize('depth', [18, 50])
def test_the_network_of_mmdet(enter_scope, depth):
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    settings = dict(THIN, depth=depth, norm_eval=False, frozen_stages=-1)
    net, stock = (
        MODELS.build(dict(settings, **kind))
        for kind in (
            dict(type='mutualnet_mm.Slimmable', wraps='mmdet.ResNet'),
            dict(type='mmdet.ResNet'),
        )
    )
    assert isinstance(net, type(stock))
    randomise_batch_norms(stock)
    net.load_state_dict(stock.state_dict(), strict=True)
    net.eval(), stock.eval()
    x = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(net(x), stock(x)))
    narrow = NarrowResNet(depth, 0.63).eval()
    fill(narrow, net)
    with torch.no_grad(), active_width(net, 0.63):
        for ours, theirs in zip(net(x), narrow(x)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_hardware_rounding(build):
    """Every tensor is a multiple of 8, the inner ones too."""
    net = build(depth=50, rounding='hardware')
    shapes = set()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda m, args, out: shapes.add(out.shape[1])
            )
    with torch.no_grad(), active_width(net, 0.27):
        net(torch.randn(1, 3, 32, 32))
    assert all(size % 8 == 0 for size in shapes)
    assert {rounded(64 * 0.27), rounded(2048 * 0.27)} <= shapes
