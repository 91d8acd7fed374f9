"""Stages with a width of their own, against networks cut by hand."""

import copy
import re

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import ConfigError, Subnet, UsageError
from mutualnet_mm.cost import count_macs
from mutualnet_mm.models.static import static_model

CLASSES = 4


def rounded(value):
    result = max(8, int(value + 4) // 8 * 8)
    return result + 8 if result < 0.9 * value else result


def resnet18(widths):
    """Inputs and outputs of each convolution, by name."""
    inputs = rounded(64 * widths[0])
    yield 'conv1', 3, inputs
    for i, width in enumerate(widths):
        outputs = rounded(64 * 2**i * width)
        for j in range(2):
            block = f'layer{i + 1}.{j}'
            if i and not j:
                yield f'{block}.downsample.0', inputs, outputs
            yield f'{block}.conv1', inputs, outputs
            yield f'{block}.conv2', outputs, outputs
            inputs = outputs


def resnet50(widths):
    inputs = int(rounded(256 * widths[0]) / 4)
    yield 'conv1', 3, inputs
    for i, (width, number) in enumerate(zip(widths, (3, 4, 6, 3))):
        outputs = rounded(256 * 2**i * width)
        inner = int(rounded(256 * 2**i * width) / 4)
        for j in range(number):
            block = f'layer{i + 1}.{j}'
            if not j:
                yield f'{block}.downsample.0', inputs, outputs
            yield f'{block}.conv1', inputs, inner
            yield f'{block}.conv2', inner, inner
            yield f'{block}.conv3', inner, outputs
            inputs = outputs


def vgg11(widths):
    inputs, place = 3, 0
    table = [(64, 1), (128, 1), (256, 2), (512, 2), (512, 2)]
    for width, (base, number) in zip(widths, table):
        for _ in range(number):
            outputs = rounded(base * width)
            yield f'features.{place}.conv', inputs, outputs
            inputs, place = outputs, place + 1
        place += 1  # the pool


def mobilenet_v2(widths):
    table = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4)]
    table += [(6, 96, 3), (6, 160, 3), (6, 320, 1)]
    inputs, base = rounded(32 * widths[0]), 32
    yield 'conv1.conv', 3, inputs
    for i, (width, (ratio, number, blocks)) in enumerate(zip(widths, table)):
        outputs = rounded(number * width)
        for j in range(blocks):
            # Of its own stage's width, also where its input is of another.
            hidden = ratio * rounded(base * width) if ratio > 1 else inputs
            units = [(hidden, hidden), (hidden, outputs)]
            for k, pair in enumerate([(inputs, hidden)] * (ratio > 1) + units):
                yield f'layer{i + 1}.{j}.conv.{k}.conv', *pair
            inputs, base = outputs, number
    yield 'conv2.conv', inputs, 1280


CASES = dict(
    resnet18=(resnet18, dict(type='ResNet', depth=18), 4, 512),
    resnet50=(resnet50, dict(type='ResNet', depth=50), 4, 2048),
    vgg11=(
        vgg11,
        dict(type='VGG', depth=11, norm_cfg=dict(type='BN')),
        5,
        512,
    ),
    mobilenet_v2=(mobilenet_v2, dict(type='MobileNetV2'), 7, 1280),
)
WIDTHS = (0.5, 0.9, 0.3, 1.0, 0.25, 0.7, 0.4)


@pytest.fixture
def configure(enter_scope):
    enter_scope('mmpretrain')

    def make(name, **mutual):
        _, stock, stages, inputs = CASES[name]
        backbone = dict(stock, type='mutualnet_mm.Slimmable')
        return dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=dict(dict(resolution=(64, 48), stages=stages), **mutual),
            backbone=dict(backbone, wraps=f'mmpretrain.{stock["type"]}'),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=CLASSES, in_channels=inputs
            ),
        )

    return make


def cut(stock, table):
    """Give a stock backbone the leading channels that a table names."""
    layers, kept = dict(stock.named_modules()), {}
    for name, inputs, outputs in table:
        old = layers[name]
        groups = inputs if old.groups > 1 else 1
        size, where = old.weight.shape, (old.stride, old.padding)
        new = nn.Conv2d(
            inputs, outputs, size[2:], *where, 1, groups, old.bias is not None
        ).double()
        new.weight.data.copy_(old.weight[:outputs, : inputs // groups])
        if old.bias is not None:
            new.bias.data.copy_(old.bias[:outputs])
        place(stock, name, new)
        kept[name] = outputs
    for name, layer in layers.items():
        if isinstance(layer, nn.BatchNorm2d):
            conv = re.sub(r'bn(\d*)$', r'conv\1', name)
            number = kept[conv.replace('downsample.1', 'downsample.0')]
            new = nn.BatchNorm2d(number).double()
            for key, value in new.state_dict().items():
                if value.dim():
                    value.copy_(layer.state_dict()[key][:number])
            place(stock, name, new)
    stock.eval()  # not chained: stock backbones' ``train`` returns nothing
    return stock


def place(net, name, layer):
    parent, _, key = name.rpartition('.')
    net.get_submodule(parent)._modules[key] = layer


def macs_of(net, images):
    """Multiply-accumulates of all convolutions, counted as they run."""
    found, handles = [], []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            handles.append(
                layer.register_forward_hook(
                    lambda m, _, out: found.append(
                        out[0].numel() * m.weight[0].numel()
                    )
                )
            )
    with torch.no_grad():
        output = net(images)[-1]
    for handle in handles:
        handle.remove()
    return sum(found), output


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    'name', ['mobilenet_v2', 'resnet18', 'resnet50', 'vgg11']
)
def test_sliced_equals_cut(configure, plain, name):
    """And costs what the network that was cut by hand costs."""
    table, stock, stages, inputs = CASES[name]
    model = plain.randomise(MODELS.build(configure(name))).double().eval()
    net = MODELS.build(dict(stock, type=f'mmpretrain.{stock["type"]}'))
    net.double().load_state_dict(model.backbone.state_dict())
    subnet = Subnet.parse('-'.join(map(str, WIDTHS[:stages])) + 'x-64')
    net = cut(net, table(WIDTHS[:stages]))
    images = torch.randn(2, 3, 64, 64, dtype=torch.double)
    macs, expected = macs_of(net, images)
    with model.slim_state.activate(subnet.width), torch.no_grad():
        found = model.backbone(images)[-1]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    pooled = expected[0].numel()  # by the global average pooling
    last = expected.shape[1] * CLASSES
    assert count_macs(model, subnet) == macs + pooled + last
    static = static_model(model, subnet)
    found = static.backbone(images)[-1]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    'name, mutual, message',
    [
        ('resnet18', dict(stages=3), 'stages=3: ResNet has 4 stages that'),
        ('mobilenet_v2', dict(stages=4), 'MobileNetV2 has 7 stages that are'),
    ],
)
def test_other_numbers_of_stages(configure, name, mutual, message):
    with pytest.raises(ConfigError, match=message):
        MODELS.build(configure(name, **mutual))


def test_one_width_for_all(configure, plain, tmp_path):
    """Stages do not change what a width does."""
    one, all_stages = (
        plain.randomise(MODELS.build(configure('resnet18', **options))).eval()
        for options in (dict(stages=1), {})
    )
    all_stages.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for width in (0.25, 0.6, 1.0):
        outputs = []
        for model in (one, all_stages):
            with model.slim_state.activate(width), torch.no_grad():
                outputs.append(model.backbone(images)[-1])
        assert torch.equal(*outputs)
    text = '0.25-0.5-0.75-1.0x-48'
    with pytest.raises(ConfigError, match='of 4 stages, and those of 1 are'):
        one.space.check(text)
    # What the checkpoint says of its training counts, too.
    with pytest.raises(UsageError, match='one width for all stages, so 0.25-'):
        all_stages.check_trained([Subnet.parse(text)])
    all_stages.load_state_dict(copy.deepcopy(all_stages).state_dict())
    all_stages.check_trained([Subnet.parse(text)])


def test_networks_without_stages(enter_scope, configure):
    enter_scope('mmpretrain')
    config = configure('resnet18')
    config['backbone'] = dict(
        type='mutualnet_mm.Slimmable',
        wraps='mmpretrain.DenseNet',
        arch='121',
    )
    config['head']['in_channels'] = 1024
    with pytest.raises(ConfigError, match='DenseNet has no stages that are'):
        MODELS.build(config)
