import threading

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    LayerRule,
    SlimConv2d,
    SlimState,
    SlimSyncBatchNorm,
    convert,
)
from mutualnet_mm.slimmable.channels import Piece

SPLIT = [*range(16), *range(20, 24)]  # of 24: 20 that narrow, 4 fixed
JOINT = (
    Piece(20, 20, LayerRule(), 20),
    Piece(4, 4, LayerRule(fixed=True), 4),
)

# Stock layer, input shape, rule, width, expected outputs, input columns.
CONVS = {
    'dense': (
        lambda: nn.Conv2d(24, 64, 3, padding=1),
        (2, 16, 9, 9),
        LayerRule(),
        0.7,
        48,
        range(16),
    ),
    'whole-input': (
        lambda: nn.Conv2d(3, 32, 7, stride=2, bias=False),
        (2, 3, 9, 9),
        LayerRule(),
        0.25,
        8,
        range(3),
    ),
    'circular': (
        lambda: nn.Conv2d(24, 32, 3, padding=2, padding_mode='circular'),
        (2, 16, 7, 9),
        LayerRule(),
        0.5,
        16,
        range(16),
    ),
    'dilated-same': (
        lambda: nn.Conv2d(24, 32, 3, padding='same', dilation=2),
        (1, 8, 9, 9),
        LayerRule(),
        0.5,
        16,
        range(8),
    ),
    'ratio': (
        lambda: nn.Conv2d(24, 64, 1, bias=False),
        (2, 16, 5, 5),
        LayerRule(ratio=1 / 4),
        0.7,
        44,
        range(16),
    ),
    'split': (
        lambda: nn.Conv2d(24, 32, 3, padding=1),
        (2, 20, 5, 5),
        LayerRule(),
        0.5,
        16,
        SPLIT,
    ),
    'fixed': (
        lambda: nn.Conv2d(24, 32, 1),
        (2, 16, 5, 5),
        LayerRule(fixed=True),
        0.25,
        32,
        range(16),
    ),
    '3d': (
        lambda: nn.Conv3d(24, 32, (3, 1, 3), padding=(1, 0, 1)),
        (2, 16, 3, 9, 9),
        LayerRule(),
        0.5,
        16,
        range(16),
    ),
    '3d-split': (
        lambda: nn.Conv3d(24, 32, 3, stride=(1, 2, 2), bias=False),
        (2, 20, 3, 9, 9),
        LayerRule(),
        0.5,
        16,
        SPLIT,
    ),
    'linear': (
        lambda: nn.Linear(24, 32),
        (5, 16),
        LayerRule(),
        0.5,
        16,
        range(16),
    ),
    'linear-fixed': (
        lambda: nn.Linear(24, 10, bias=False),
        (2, 3, 8),
        LayerRule(fixed=True),
        0.5,
        10,
        range(8),
    ),
    'linear-split': (
        lambda: nn.Linear(24, 32),
        (5, 20),
        LayerRule(),
        0.5,
        16,
        SPLIT,
    ),
}


def slim(layer, width, rule=None):
    holder = nn.Sequential(layer)
    rules = None if rule is None else {'0': rule}
    state = SlimState()
    convert(holder, state, rules, strict=False)
    state.set_width(width)
    return layer


def check_against(layer, narrow, x, outputs, columns):
    """Output and gradients of ``layer`` are those of the ``narrow`` one."""
    ours, stock = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = layer(ours), narrow(stock)
    assert_close(out, expected)
    weights = torch.randn_like(expected)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_close(ours.grad, stock.grad)
    grad = torch.zeros_like(layer.weight)
    grad[:outputs, columns] = narrow.weight.grad
    assert_close(layer.weight.grad, grad)
    if layer.bias is not None:
        assert_close(layer.bias.grad[:outputs], narrow.bias.grad)
        assert not layer.bias.grad[outputs:].any()


@pytest.mark.parametrize('case', CONVS)
def test_narrow_dense(case):
    make, shape, rule, width, outputs, columns = CONVS[case]
    columns = list(columns)
    layer, narrow = make(), make()
    narrow.weight.data = layer.weight.data[:outputs][:, columns].clone()
    if layer.bias is not None:
        narrow.bias.data = layer.bias.data[:outputs].clone()
    slim(layer, width, rule)
    if columns == SPLIT:
        layer.slim_inputs = JOINT
    check_against(layer, narrow, torch.randn(shape), outputs, columns)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize(
    'conv, spatial', [(nn.Conv2d, (9, 9)), (nn.Conv3d, (3, 9, 9))]
)
@pytest.mark.parametrize(
    'group_width, out_per_group, inputs',
    [(1, 1, 16), (1, 2, 16), (4, 4, 12), (4, 6, 20)],
)
def test_narrow_groups(
    conv, spatial, bias, group_width, out_per_group, inputs
):
    groups, used = 32 // group_width, inputs // group_width
    options = dict(kernel_size=3, padding=1, bias=bias)
    layer = conv(32, groups * out_per_group, groups=groups, **options)
    outputs = used * out_per_group
    narrow = conv(inputs, outputs, groups=used, **options)
    narrow.weight.data = layer.weight.data[:outputs].clone()
    if bias:
        narrow.bias.data = layer.bias.data[:outputs].clone()
    slim(layer, 0.5)
    x = torch.randn(2, inputs, *spatial)
    check_against(layer, narrow, x, outputs, slice(None))
    assert layer.groups == groups


def test_groups_that_the_input_does_not_fill_are_refused():
    layer = slim(nn.Conv2d(32, 32, 3, groups=8), 0.5)
    with pytest.raises(ConfigError, match='18 channels.*groups of 4'):
        layer(torch.randn(1, 18, 5, 5))


@pytest.mark.parametrize('case', CONVS)
def test_full_width_is_bit_equal(case):
    make, shape, rule = CONVS[case][:3]
    stock = make()
    layer = make()
    layer.load_state_dict(stock.state_dict())
    slim(layer, 1.0, rule)
    inputs = stock.weight.shape[1]
    shape = (
        (*shape[:-1], inputs)
        if isinstance(stock, nn.Linear)
        else (shape[0], inputs, *shape[2:])
    )
    x = torch.randn(shape)
    assert torch.equal(layer(x), stock(x))


@pytest.mark.parametrize('case', CONVS)
def test_attributes_and_keys_stay(case):
    make, shape, rule, width = CONVS[case][:4]
    stock, layer = make(), make()
    keys = list(stock.state_dict())
    slim(layer, width, rule)(torch.randn(shape))
    assert isinstance(layer, type(stock))
    assert list(layer.state_dict()) == keys
    names = (
        ['in_features', 'out_features']
        if isinstance(stock, nn.Linear)
        else ['in_channels', 'out_channels', 'groups', 'stride', 'padding']
    )
    for name in names:
        assert getattr(layer, name) == getattr(stock, name)
    assert layer.weight.shape == stock.weight.shape


def test_subclass_instances_are_slim_layers():
    class MmcvLikeConv(nn.Conv2d):
        pass

    assert isinstance(slim(MmcvLikeConv(3, 8, 1), 1.0), SlimConv2d)
    assert isinstance(slim(nn.SyncBatchNorm(8), 1.0), SlimSyncBatchNorm)


def test_threads_may_run_one_depthwise_network():
    """As they may run a stock one: a forward changes no layer."""
    layers = [nn.Conv2d(16, 16, 3, groups=16) for _ in range(6)]
    net, state = nn.Sequential(*layers).eval(), SlimState()
    convert(net, state)
    x, errors = torch.randn(1, 8, 24, 24), []
    state.set_width(0.5)
    with torch.no_grad():
        expected = net(x)

    def run():
        try:
            with torch.no_grad():
                for _ in range(100):
                    assert torch.equal(net(x), expected)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [layer.groups for layer in net] == [16] * 6


def test_a_narrow_depthwise_pass_sets_nothing(monkeypatch):
    net = nn.Sequential(nn.Conv2d(16, 16, 3, groups=16))
    convert(net, SlimState())
    net[0].slim_state.set_width(0.5)
    written = []
    monkeypatch.setattr(
        type(net[0]), '__setattr__', lambda layer, *item: written.append(item)
    )
    net(torch.randn(1, 8, 5, 5))
    assert not written
