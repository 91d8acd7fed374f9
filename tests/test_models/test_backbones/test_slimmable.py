"""Any stock backbone either runs right at every width or is refused."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import ConfigError
from mutualnet_mm.slimmable import active_width

HRNET = {
    f'stage{i}': dict(
        num_modules=1,
        num_branches=i,
        block='BOTTLENECK' if i == 1 else 'BASIC',
        num_blocks=(1,) * i,
        num_channels=(16, 24, 32, 40)[:i],
    )
    for i in range(1, 5)
}
ACCEPTED = {
    'ResNet': dict(depth=18),
    'ResNetV1d': dict(depth=50),
    'ResNet_CIFAR': dict(depth=18),
    'SEResNet': dict(depth=50),
    'MobileNetV2': dict(),
    'MobileNetV3': dict(arch='small'),
    'VGG': dict(depth=11, norm_cfg=dict(type='BN')),
    'RepVGG': dict(arch='A0'),
    'HRNet': dict(extra=HRNET),
}
REFUSED = {
    'DenseNet': dict(arch='121'),
    'ShuffleNetV2': dict(),
    'ShuffleNetV1': dict(),
    'CSPDarkNet': dict(depth=53),
    'ResNeXt': dict(depth=50),
    'EfficientNet': dict(arch='b0'),
    'ConvNeXt': dict(arch='atto'),
    'VisionTransformer': dict(arch='deit-tiny', img_size=32),
    'Res2Net': dict(depth=50, scales=4, base_width=26),
    'InceptionV3': dict(),
}


@pytest.fixture
def build(enter_scope):
    enter_scope('mmpretrain')

    def make(wraps, **kwargs):
        return MODELS.build(
            dict(type='mutualnet_mm.Slimmable', wraps=wraps, **kwargs)
        )

    return make


def randomise(net):
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)


@pytest.mark.parametrize('name', ACCEPTED)
def test_accepted_are_stock_at_full_width(build, name):
    net = build(name, **ACCEPTED[name])
    stock = MODELS.build(dict(type=name, **ACCEPTED[name]))
    assert isinstance(net, type(stock))
    randomise(stock)
    net.load_state_dict(stock.state_dict(), strict=True)
    net.eval(), stock.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = stock(x), net(x)
        assert len(found) == len(expected)
        assert all(torch.equal(a, b) for a, b in zip(found, expected))
        with active_width(net, 0.5):
            narrow = net(x)
    stock.load_state_dict(net.state_dict(), strict=True)
    if name != 'MobileNetV2':  # whose last layer is left to its own file
        for a, b in zip(narrow, expected):
            assert a.shape[1] < b.shape[1] and a.shape[2:] == b.shape[2:]


@pytest.mark.parametrize('name', REFUSED)
def test_refused_by_name(build, name):
    with pytest.raises(ConfigError) as error:
        build(name, **REFUSED[name])
    text = str(error.value)
    assert '\n' not in text
    names = {
        layer or type(module).__name__
        for layer, module in MODELS.build(
            dict(type=name, **REFUSED[name])
        ).named_modules()
    }
    words = {w.strip('",.()') for w in text.replace(name + '.', '').split()}
    assert name in text or words & names, text
    assert words & names or 'output' in words, text


@pytest.mark.parametrize(
    'wraps, expected',
    [
        ('ResNett', "did you mean 'ResNet'"),
        ('mmpretrain.Nothing', 'mmpretrain'),
        ('nowhere.ResNet', 'nowhere'),
        (3, 'wraps=3'),
        ('mutualnet_mm.SlimmableResNet', 'SlimmableResNet'),
    ],
)
def test_unknown_wraps(build, wraps, expected):
    with pytest.raises(ConfigError) as error:
        build(wraps)
    assert expected in str(error.value) and '\n' not in str(error.value)


def test_wrapping_twice(build):
    with pytest.raises(ConfigError, match='already'):
        build(type(build('ResNet', depth=18)))


@pytest.mark.parametrize(
    'settings', [dict(max_width=0), dict(rounding='none')]
)
def test_wrong_settings(build, settings):
    with pytest.raises(ConfigError) as error:
        build('ResNet', depth=18, **settings)
    assert str(next(iter(settings.values()))) in str(error.value)


class Shared(nn.Module):
    """One layer for two maps of different widths."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        return (self.second(torch.cat([x[:, 16:], x[:, :16]], 1)),)


def test_mixed_channels_of_a_class_are_refused(build):
    with pytest.raises(ConfigError, match='"second"'):
        build(Shared)


def test_copies_keep_the_sharing_of_the_width(build):
    net = build('ResNet', depth=18, base_channels=16, stem_channels=16)
    net.eval()
    x = torch.randn(1, 3, 32, 32)
    twin = copy.deepcopy(net)
    assert type(twin) is type(net)
    with active_width(net, 0.5):
        assert net(x)[0].shape[1] == 64
        assert twin(x)[0].shape[1] == 128
    with active_width(twin, 0.5):
        assert twin(x)[0].shape[1] == 64
    assert torch.equal(twin(x)[0], net(x)[0])
