"""Every backbone of mmpretrain: right at every width, or refused by name."""

import copy
import re
import sys
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path

import pytest
import torch
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmengine.registry import MODELS
from tiny_transformers import settings_of, single_inputs, tensors
from torch import nn

from mutualnet_mm import UsageError
from mutualnet_mm.models.backbones import TransformerMixin
from mutualnet_mm.slimmable import active_width, make_static
from mutualnet_mm.slimmable.slim_layer import SlimLayer
from mutualnet_mm.slimmable.vectors import SlimVectors

pytest.importorskip('mmpretrain')
ROOT = Path(__file__).parents[3]
spec = spec_from_file_location('tool', ROOT / 'tools/list_backbones.py')
tool = module_from_spec(spec)
spec.loader.exec_module(tool)
BACKBONES = tool.stock_backbones()
RESNET = dict(depth=50, base_channels=16, stem_channels=16)
RESNEXT = dict(RESNET, groups=8)
POOLING = dict(layers=[1, 1, 2, 1], embed_dims=[24, 48, 96, 160])
# The large ones with fewer channels, and with fewer of the same blocks.
SMALLER = {
    'ConvNeXt': dict(
        arch=dict(depths=[1, 1, 2, 1], channels=[24, 48, 96, 160])
    ),
    'ConvMixer': dict(
        arch=dict(embed_dims=128, depth=3, patch_size=14, kernel_size=9)
    ),
    'MobileOne': dict(
        arch=dict(
            num_blocks=[1, 2, 2, 1],
            width_factor=[0.75, 1.0, 1.0, 1.0],
            num_conv_branches=[4, 4, 4, 4],
            num_se_blocks=[0, 0, 0, 0],
        )
    ),
    'PoolFormer': dict(arch=POOLING),
    'RIFormer': dict(arch=POOLING),
    'VAN': dict(
        arch=dict(
            embed_dims=[24, 48, 96, 160],
            depths=[1, 1, 2, 1],
            ffn_ratios=[8, 8, 4, 4],
        )
    ),
    'RepLKNet': dict(
        arch=dict(
            large_kernel_sizes=[31, 29, 27, 13],
            layers=[1, 1, 2, 1],
            channels=[16, 32, 64, 128],
            small_kernel=5,
            dw_ratio=1,
        )
    ),
    'Res2Net': dict(depth=50),
    'ResNet': RESNET,
    'ResNet_CIFAR': RESNET,
    'ResNetV1c': RESNET,
    'ResNetV1d': RESNET,
    'ResNeXt': RESNEXT,
    'SEResNet': RESNET,
    'SEResNeXt': RESNEXT,
    'Conformer': dict(arch='tiny', base_channels=32),
    'EdgeNeXt': dict(arch='xxsmall'),
    'HiViT': dict(arch='tiny', img_size=64),
    **settings_of('mmpretrain'),
}
for class_name, smaller in SMALLER.items():
    BACKBONES[class_name].update(smaller)
# The same of networks whose sizes are told by a name alone.
SMALLER_ARCHS = {
    'Vig': dict(num_blocks=2, channels=64),
    'PyramidVig': dict(blocks=[1, 1, 1, 1], channels=[32, 64, 128, 256]),
}
REASONS = {}  # what the tests found
# A network of a class that is to work, whatever else does.
EXPECTED = {
    'CSPDarkNet',
    'CSPResNeXt',
    'CSPResNet',
    'ConvNeXt',
    'DenseNet',
    'EfficientNet',
    'EfficientNetV2',
    'InceptionV3',
    'PoolFormer',
    'RIFormer',
    'Res2Net',
    'ResNeSt',
    'ResNet',
    'ResNetV1d',
    'ResNet_CIFAR',
    'SEResNet',
    'ResNeXt',
    'RegNet',
    'MobileNetV2',
    'MobileNetV3',
    'VAN',
    'VGG',
    'RepVGG',
    'HRNet',
}


def randomise(net):
    for layer in net.modules():
        for vector in layer._parameters.values():  # scales and biases
            if vector is not None and vector.dim() == 1:
                nn.init.uniform_(vector, 0.5, 1.5)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)


def narrow_copy(net, x, width):
    """The network of plain layers that are as wide as ``net`` ran.

    Each has the leading part of a layer's weights; where joints were found,
    the part that these name.
    """
    places, scales, handles = {}, {}, []
    for name, layer in net.named_modules():
        if isinstance(layer, SlimLayer):

            def record(layer, args, kwargs, out, name=name):
                # Of maps a norm is told the axis, of tokens it is the last.
                last = args[0].dim() == 3 or channels_last(layer, kwargs)
                axis = -1 if last or isinstance(layer, nn.Linear) else 1
                inputs = args[0].shape[axis]
                places[name] = (
                    numbers(layer.columns(inputs)),
                    numbers(layer.output_ranges(inputs, channels_of(layer))),
                )
                assert [len(part) for part in places[name]] == [
                    inputs,
                    out.shape[axis],
                ]

            handle = layer.register_forward_hook(record, with_kwargs=True)
            handles.append(handle)
        elif isinstance(layer, SlimVectors):

            def measure(layer, args, out, name=name):
                scales[name] = out.shape[-1 if channels_last(layer) else 1]

            handles.append(layer.register_forward_hook(measure))
    with torch.no_grad(), active_width(net, width):
        outputs = net(x)
    for handle in handles:
        handle.remove()
    narrow = copy.deepcopy(net)
    for name, (columns, rows) in places.items():
        *path, last = name.split('.')
        parent = narrow.get_submodule('.'.join(path))
        setattr(parent, last, plain(net.get_submodule(name), columns, rows))
    for block in narrow.modules():
        if type(block).__name__ == 'SlimBottle2neck':  # splits by a number
            block.__class__ = type(block).stock_class
            block.width = block.convs[0].out_channels
    for name, channels in scales.items():
        cut_vectors(narrow.get_submodule(name), channels)
    narrow.eval()  # not chained: stock backbones' ``train`` returns nothing
    return narrow, outputs


def channels_last(layer, arguments=None):
    """Whether a layer takes maps whose last axis is the channels."""
    said = [*(arguments or {}).values(), getattr(layer, 'data_format', '')]
    return any(value in ('channel_last', 'channels_last') for value in said)


def cut_vectors(block, channels):
    """Make a block a stock one again, with the leading part of its scales."""
    block.__class__ = next(
        stock
        for stock in type(block).__mro__
        if stock.__module__.startswith('mmpretrain.')
        and getattr(sys.modules[stock.__module__], stock.__name__) is stock
    )
    for key, vector in block._parameters.items():
        if vector is not None:
            part = vector.detach()[:channels].clone()
            setattr(block, key, nn.Parameter(part))
    if 'out_channels' in vars(block):  # the network reshapes by it
        block.out_channels = channels


def numbers(ranges):
    return [n for start, stop in ranges for n in range(start, stop)]


def channels_of(layer):
    names = ('num_features', 'num_channels', 'out_channels', 'out_features')
    if hasattr(layer, 'normalized_shape'):
        return layer.normalized_shape[0]
    return next(getattr(layer, n) for n in names if hasattr(layer, n))


def plain(layer, columns, rows):
    """A stock layer with some rows and columns of what ``layer`` holds."""
    if isinstance(layer, nn.BatchNorm2d):
        new = nn.BatchNorm2d(len(rows), eps=layer.eps)
    elif isinstance(layer, nn.Linear):
        new = nn.Linear(len(columns), len(rows))
    elif isinstance(layer, nn.GroupNorm):
        assert layer.num_groups == 1
        new = nn.GroupNorm(1, len(rows), eps=layer.eps)
    elif hasattr(layer, 'data_format'):  # HorNet's own
        from mmpretrain.models.backbones.hornet import HorNetLayerNorm

        new = HorNetLayerNorm(len(rows), layer.eps, layer.data_format)
    elif isinstance(layer, nn.LayerNorm):
        from mmpretrain.models.utils.norm import LayerNorm2d

        of_maps = isinstance(layer, LayerNorm2d)
        new = (LayerNorm2d if of_maps else nn.LayerNorm)(
            len(rows), eps=layer.eps
        )
    else:
        groups = layer.groups
        if groups > 1 and not layer.slim_rule.narrow_groups:
            groups = groups * len(columns) // layer.in_channels
        padded = isinstance(layer, Conv2dAdaptivePadding)
        new = (Conv2dAdaptivePadding if padded else nn.Conv2d)(
            len(columns),
            len(rows),
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            groups,
            bias=layer.bias is not None,
        )
    state = layer.state_dict()
    new = new.double()
    with torch.no_grad():
        for key, value in new.state_dict().items():
            part = state[key]
            if part.dim():
                part = part[rows]
            if part.dim() > 1:
                whole = part.shape[1] == value.shape[1]
                leading = list(range(value.shape[1]))
                grouped = getattr(layer, 'groups', 1) > 1
                chosen = leading if grouped else columns
                part = part if whole else part[:, chosen]
            value.copy_(part)
    return new


@pytest.mark.sweep(8)
@pytest.mark.parametrize('name', BACKBONES)
def test_right_or_refused(enter_scope, name, monkeypatch):
    enter_scope('mmpretrain')
    if name in SMALLER_ARCHS:
        archs = MODELS.get(f'mmpretrain.{name}').arch_settings
        arch = BACKBONES[name]['arch']
        monkeypatch.setitem(archs, arch, SMALLER_ARCHS[name])
    try:
        # Without the initial weights alone: the proof draws its own.
        with uninitialised(nn.init):
            net = tool.try_backbone(name, BACKBONES[name])
    except UsageError as error:
        assert name not in EXPECTED, error
        REASONS[name] = str(error)
        check_refusal(name, str(error))
        return
    REASONS[name] = ''
    if isinstance(net, TransformerMixin):
        check_transformer(name, net)
        return
    channels = next(
        m.in_channels for m in net.modules() if isinstance(m, nn.Conv2d)
    )
    size = max(64, net.slim_joints.input_shape[-1])
    x = torch.randn(1, channels, size, size, dtype=torch.double)
    check_full_width(name, net, x)
    narrow, outputs = narrow_copy(net, x, 0.45)
    with torch.no_grad():
        for ours, theirs in zip(outputs, narrow(x)):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)
    count = sum(p.numel() for p in narrow.parameters())
    assert count < 0.5 * sum(p.numel() for p in net.parameters())


def check_transformer(name, net):
    """As the stock network, and as the narrow one of stock layers.

    That this is what it should be is shown by the proof of the build, and
    without our code for one network of each kind in test_transformers.py.
    """
    single_inputs(net)
    x = torch.randn(net.slim_joints.input_shape, dtype=torch.double)
    check_full_width(name, net, x)
    static = copy.deepcopy(net)
    with torch.no_grad(), active_width(net, 0.45):
        outputs = tensors(net(x))
    with active_width(static, 0.45):
        make_static(static, x)
    with torch.no_grad():
        for ours, theirs in zip(outputs, tensors(static(x))):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)
    count = sum(p.numel() for p in static.parameters())
    assert count < 0.9 * sum(p.numel() for p in net.parameters())


def check_full_width(name, net, x):
    """Bit-equal to the stock network, with the same keys."""
    stock = MODELS.build(dict(type=name, **BACKBONES[name]))
    assert isinstance(net, type(stock))
    randomise(stock)
    # SwinTransformerV2 drops tables that it computes.
    strict = name != 'SwinTransformerV2'
    net.load_state_dict(stock.state_dict(), strict=strict)
    stock.load_state_dict(net.state_dict(), strict=strict)
    if isinstance(net, TransformerMixin):
        single_inputs(stock)
    net.double().eval(), stock.double().eval()
    with torch.no_grad():
        expected, found = stock(x), net(x)
    assert len(found) == len(expected)
    assert equal(found, expected)


def equal(a, b):
    """Bit by bit. InceptionV3 returns a None, DeiT two tokens at once."""
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a is b or torch.equal(a, b)


@contextmanager
def uninitialised(*owners):
    """Leave out what takes most of the time of a build: random weights.

    Numbers that are alike take their place, since what memory held before
    may be no number. Not the meta device, on which many of these networks
    cannot be built.
    """

    def fill(tensor, *_, **__):
        with torch.no_grad():
            return tensor.fill_(0.02)

    names = ['normal_', 'uniform_', 'erfinv_', 'trunc_normal_']
    names += ['kaiming_normal_', 'kaiming_uniform_', 'xavier_uniform_']
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in product(owners, names):
            if hasattr(owner, name):
                patch.setattr(owner, name, fill)
        yield


def check_refusal(name, text):
    """In one line, naming a layer of the network."""
    assert '\n' not in text
    with uninitialised(torch.Tensor):
        stock = MODELS.build(dict(type=name, **BACKBONES[name]))
    layers = {n for n, _ in stock.named_modules() if n} | {name}
    words = {w.strip('",.()') for w in text.split()}
    words |= {w[len(name) + 1 :] for w in words if w.startswith(f'{name}.')}
    assert words & layers, text


def test_the_tool_without_mmpretrain(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'mmpretrain', None)
    monkeypatch.setattr(sys, 'argv', ['list_backbones.py'])
    with pytest.raises(SystemExit, match='^error: .*mmpretrain'):
        tool.main()


def test_the_tool_shows_how_far_it_is(monkeypatch):
    shown = []

    def track(sequence, description, total):
        shown.append(total)
        return sequence

    monkeypatch.setattr(tool, 'track', track)
    monkeypatch.setattr(tool, 'stock_backbones', lambda project: {'ViT': {}})
    monkeypatch.setattr(tool, 'try_backbone', lambda *arguments: None)
    assert tool.survey_backbones() == {'ViT': ''} and shown == [1]


def test_reasons_are_English():
    text = (ROOT / 'docs/backbones.md').read_text()
    assert not re.search(r'\ba [AEIO]', text)


def test_the_page_lists_what_was_found():
    """docs/backbones.md is written by tools/list_backbones.py, not by hand."""
    import mmpretrain

    text = (ROOT / 'docs/backbones.md').read_text()
    if f'mmpretrain {mmpretrain.__version__}\n' not in text:
        pytest.skip('the page was written with another mmpretrain')
    if REASONS.keys() == BACKBONES.keys():
        assert tool.survey_page(REASONS) == text
    for name, reason in REASONS.items():
        line = f'| {name} | {reason} |' if reason else f'- {name}'
        assert line in text.splitlines()
