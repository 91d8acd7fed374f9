import pytest
import torch
from torch import nn

from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    active_width,
    convert,
    count_module_params,
)
from mutualnet_mm.slimmable.channels import Piece


def numel(module):
    return sum(p.numel() for p in module.parameters())


def make_net(widths=(32, 64, 64)):
    a, b, c = widths
    return nn.Sequential(
        nn.Conv2d(3, a, 3, 2, 1, bias=False),
        nn.BatchNorm2d(a),
        nn.ReLU(),
        nn.Conv2d(a, a, 3, 1, 1, groups=a),
        nn.Conv2d(a, b, 1),
        nn.BatchNorm2d(b, affine=False),
        nn.Conv2d(b, c, 3, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(c, 10),
    )


@pytest.mark.parametrize(
    'width, widths',
    [(1.0, (32, 64, 64)), (0.7, (24, 48, 48)), (0.25, (8, 16, 16))],
)
@pytest.mark.parametrize('training', [False, True])
def test_those_of_the_narrow_network(width, widths, training):
    net = make_net().train(training)
    convert(net, SlimState(), {'9': LayerRule(fixed=True)})
    with active_width(net, width):
        found = count_module_params(net, torch.empty(2, 3, 33, 33))
    assert found == numel(make_net(widths))
    assert net[0].weight.device.type == 'cpu'
    assert not any(module._forward_hooks for module in net.modules())
    assert all(module.training == training for module in net.modules())


def test_whole_groups_and_all_dimensions():
    def make(a, b):
        return nn.Sequential(
            nn.Conv3d(3, a, (1, 3, 3)),
            nn.BatchNorm3d(a),
            nn.Conv3d(a, b, 3, groups=a // 16),
        )

    net = make(64, 128)
    rule = LayerRule(divisor=16)
    convert(net, SlimState(), {'0': rule, '2': rule})
    with active_width(net, 0.5):
        found = count_module_params(net, torch.empty(1, 3, 4, 9, 9))
    assert found == numel(make(32, 64))


def test_columns_of_a_branch_that_stays_wide():
    """Leading 8 of 16 channels and always the last 4."""
    layer = nn.Conv2d(20, 32, 3)
    convert(layer, SlimState())
    layer.slim_inputs = (
        Piece(16, 16, LayerRule(), 16),
        Piece(4, 4, LayerRule(fixed=True), 4),
    )
    with active_width(layer, 0.5):
        found = count_module_params(layer, torch.empty(1, 12, 9, 9))
    assert found == 16 * 12 * 9 + 16


def test_layers_that_are_not_run_count_whole():
    net = nn.ModuleDict(
        {'run': nn.Linear(32, 16), 'head': nn.Linear(16, 4), 'own': Scale()}
    )
    convert(net, SlimState(), strict=False)
    with active_width(net, 0.5):
        found = count_module_params(
            net,
            torch.empty(2, 16),
            forward=lambda net, x: net['own'](net['run'](x)),
        )
    assert found == (16 * 8 + 8) + (16 * 4 + 4) + 3


def test_layers_that_run_twice_count_once_at_their_widest():
    layer = nn.Conv2d(32, 32, 1, bias=False)
    net = nn.ModuleList([layer, layer])
    convert(net, SlimState(), {'0': LayerRule(fixed=True)})

    def forward(net, x):
        net[0](x)
        return net[1](x[:, :8])

    with active_width(net, 0.5):
        found = count_module_params(
            net, torch.empty(1, 16, 4, 4), forward=forward
        )
    assert found == 16 * 32


class Scale(nn.Module):
    """A module with parameters that is no slim layer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x * self.scale.sum()
