"""What `Slimmable(wraps=...)` takes and refuses, whatever it wraps."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import ConfigError
from mutualnet_mm.slimmable import active_width


@pytest.fixture
def build(enter_scope):
    enter_scope('mmpretrain')

    def make(wraps, **kwargs):
        return MODELS.build(
            dict(type='mutualnet_mm.Slimmable', wraps=wraps, **kwargs)
        )

    return make


@pytest.mark.parametrize(
    'wraps, expected',
    [
        ('ResNett', "did you mean 'ResNet'"),
        ('mmpretrain.Nothing', 'mmpretrain'),
        ('nowhere.ResNet', 'nowhere'),
        (3, 'model.backbone.wraps=3'),
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
