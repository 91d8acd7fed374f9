"""A batch norm with an activation, beside the two layers apart."""

import copy

import pytest
import torch
from torch import nn

from mutualnet_mm.slimmable import (
    SlimBatchNormAct,
    active_width,
    make_static,
    register_layer,
    slim,
    slim_states,
)


class NormAct(nn.BatchNorm2d):
    """As timm has it: normalise, drop, activate."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.SiLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


register_layer(NormAct, SlimBatchNormAct)


def together():
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3), NormAct(32)),
        *(nn.Conv2d(32, 48, 3), NormAct(48)),
    )


def apart():
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3), nn.Sequential(nn.BatchNorm2d(32), nn.SiLU())),
        *(nn.Conv2d(32, 48, 3), nn.Sequential(nn.BatchNorm2d(48), nn.SiLU())),
    )


@pytest.fixture
def pair():
    one, two = together().double(), apart().double()
    for norm in (one[1], one[3]):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    two.load_state_dict(dict(zip(two.state_dict(), one.state_dict().values())))
    nets = slim(one, keep_outputs=False), slim(two, keep_outputs=False)
    for net in nets:
        slim_states(net)[0].running_stats = True  # any will do
    return nets


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('width', [1.0, 0.5])
def test_equals_both_apart(pair, width, training):
    x = torch.randn(2, 3, 9, 9, dtype=torch.double)
    found = []
    for net in pair:
        net.train(training)
        with active_width(net, width):
            found.append(net(x))
    assert torch.equal(*found)
    means = pair[0][3].running_mean, pair[1][3][0].running_mean
    assert torch.equal(*means)


@pytest.mark.parametrize('fuse_bn', [True, False])
def test_static_form_keeps_the_activation(pair, fuse_bn):
    net = pair[0].eval()
    x = torch.randn(2, 3, 9, 9, dtype=torch.double)
    with torch.no_grad(), active_width(net, 0.5):
        expected = net(x)
        static = copy.deepcopy(net)
        make_static(static, x, fuse_bn=fuse_bn)
        assert type(static[1]) is NormAct
        assert torch.equal(static(x), expected)
