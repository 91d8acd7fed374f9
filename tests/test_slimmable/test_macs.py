import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    active_width,
    convert,
    count_module_macs,
)


class Call(nn.Module):
    """Runs a function, to have one that no module stands for."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


@pytest.mark.parametrize(
    'module, shape, expected',
    [
        # outputs x kernel x inputs (per group) x positions
        (nn.Conv2d(3, 16, 3, padding=1), (1, 3, 8, 8), 16 * 27 * 64),
        (nn.Conv2d(3, 16, 3, padding=1), (5, 3, 8, 8), 5 * 16 * 27 * 64),
        (nn.Conv2d(16, 16, 3, groups=16), (1, 16, 8, 8), 16 * 9 * 36),
        (nn.Conv2d(16, 32, 3, groups=4), (1, 16, 8, 8), 32 * 9 * 4 * 36),
        (nn.Conv2d(3, 8, 3, 2, 1), (1, 3, 9, 7), 8 * 27 * 5 * 4),
        (
            nn.Conv3d(3, 8, (5, 1, 1), padding=(2, 0, 0), bias=False),
            (1, 3, 3, 9, 9),
            8 * 15 * 3 * 81,
        ),
        (nn.Linear(32, 10), (4, 32), 4 * 320),
        (nn.Linear(32, 10, bias=False), (2, 3, 32), 6 * 320),
        (nn.Conv1d(4, 8, 3), (1, 4, 10), 8 * 12 * 8),
        (nn.AdaptiveAvgPool2d(1), (2, 8, 5, 6), 2 * 8 * 30),
        (nn.AdaptiveAvgPool2d((1, 1)), (1, 8, 5, 6), 8 * 30),
        (nn.AdaptiveAvgPool3d(1), (1, 8, 3, 5, 6), 8 * 90),
        (nn.AdaptiveAvgPool2d(2), (1, 8, 6, 6), 0),
        (nn.AvgPool2d(2), (1, 8, 6, 6), 0),
        (nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()), (1, 8, 6, 6), 0),
    ],
    ids=str,
)
def test_hand_computed(module, shape, expected):
    assert count_module_macs(module, torch.empty(shape)) == expected


@pytest.mark.parametrize(
    'function, expected',
    [
        (lambda x: F.conv2d(x, x.new_ones(4, 8, 3, 3)), 4 * 72 * 16),
        (lambda x: F.linear(x, x.new_ones(10, 6)), 48 * 60),
        (lambda x: x @ x.mT, 8 * 6 * 6 * 6),
    ],
    ids=['conv', 'linear', 'matmul'],
)
def test_functions_count(function, expected):
    assert count_module_macs(Call(function), torch.empty(1, 8, 6, 6)) == (
        expected
    )


def test_own_forward_and_other_arguments():
    net = nn.ModuleDict({'a': nn.Linear(8, 4), 'b': nn.Linear(4, 2)})

    def forward(module, x, times, name):
        for _ in range(times):
            module['a'](x)
        return module[name](x[:, :4])

    macs = count_module_macs(net, torch.empty(3, 8), 2, 'b', forward=forward)
    assert macs == 3 * (2 * 32 + 8)


def make_net(widths=(32, 64, 64)):
    a, b, c = widths
    return nn.Sequential(
        nn.Conv2d(3, a, 3, 2, 1, bias=False),
        nn.BatchNorm2d(a),
        nn.ReLU(),
        nn.Conv2d(a, a, 3, 1, 1, groups=a),
        nn.Conv2d(a, b, 1),
        nn.Conv2d(b, c, 3, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(c, 10),
    )


@pytest.mark.parametrize(
    'width, widths', [(1.0, (32, 64, 64)), (0.7, (24, 48, 48))]
)
def test_sliced_count_is_that_of_the_narrow_network(width, widths):
    net = make_net()
    convert(net, SlimState(), {'8': LayerRule(fixed=True)})
    x = torch.empty(2, 3, 33, 33)
    with active_width(net, width):
        macs = count_module_macs(net, x)
    a, b, c = widths
    expected = (a * 27 + a * 9 + a * b) * 17**2 + (9 * b * c + c) * 8**2
    assert macs == 2 * (expected + 10 * c)
    assert macs == count_module_macs(make_net(widths), x)


def test_nothing_is_changed():
    net = make_net()
    convert(net, SlimState())
    net.train()
    net[1].eval()  # modes may differ between layers
    net[0].weight.requires_grad_(False)
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    modes = [module.training for module in net.modules()]
    x = torch.randn(2, 3, 33, 33)
    count_module_macs(net, x)
    with pytest.raises(ZeroDivisionError):
        count_module_macs(net, x, forward=lambda module, x: 1 // 0)

    assert [module.training for module in net.modules()] == modes
    after = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    for name, tensor in after.items():
        assert tensor is tensors[name]
        assert tensor.device.type == 'cpu'
        assert torch.equal(tensor, before[name])
    assert not net[0].weight.requires_grad
    assert net[3].weight.requires_grad
    assert not any(module._forward_hooks for module in net.modules())


def test_shared_layers_count_each_time():
    layer = nn.Linear(8, 8)
    assert count_module_macs(
        nn.Sequential(layer, layer), torch.empty(1, 8)
    ) == (2 * 64)


def test_patched_forwards_stay():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    net[1].forward = torch.sigmoid
    count_module_macs(net, torch.empty(1, 3, 4, 4))
    assert net[1].forward is torch.sigmoid
    assert 'forward' not in net[0].__dict__
