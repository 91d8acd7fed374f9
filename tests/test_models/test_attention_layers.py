"""Attention blocks of convolutional networks, beside stock ones."""

import copy

import pytest
import torch
from mmcv.cnn.bricks import NonLocal1d, NonLocal2d, NonLocal3d
from mmcv.cnn.bricks.generalized_attention import GeneralizedAttention
from torch import nn
from torch.testing import assert_close

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import active_width, make_static, slim

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NON_LOCAL = {1: NonLocal1d, 2: NonLocal2d, 3: NonLocal3d}


def around(block, dims, channels=32):
    """The block between two convolutions, its weights not zero."""
    convolution = CONVOLUTIONS[dims]
    net = nn.Sequential(
        convolution(3, channels, 3), block, convolution(channels, 8, 1)
    ).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.eval()


def check(net, dims, narrow_block):
    """Compare with a narrow network of stock layers at half the width."""
    stock = copy.deepcopy(net)
    size = {1: 14, 2: 10, 3: 7}[dims]
    x = torch.randn(2, 3, *[size] * dims, dtype=torch.double)
    slim(net, x.shape)
    with torch.no_grad():
        assert torch.equal(net(x), stock(x))
        first, _, last = stock
        expected = narrow_block(first(x)[:, :16])
        last.weight.data = last.weight[:, :16]
        last.in_channels = 16
        expected = last(expected)
        with active_width(net, 0.5):
            assert_close(net(x), expected)
            make_static(net, x)
        assert_close(net(x), expected)


@pytest.mark.parametrize('sub_sample', [False, True])
@pytest.mark.parametrize('dims', [1, 2, 3])
@pytest.mark.parametrize(
    'mode', ['embedded_gaussian', 'dot_product', 'concatenation']
)
def test_non_local_blocks(mode, dims, sub_sample):
    """Half of 32 channels with 16 inside: a stock block of as many."""
    settings = dict(mode=mode, sub_sample=sub_sample)
    net = around(NON_LOCAL[dims](32, reduction=2, **settings), dims)
    narrow = NON_LOCAL[dims](16, reduction=1, **settings).double().eval()
    weights = dict(net[1].named_parameters())
    for name, parameter in narrow.named_parameters():
        size = tuple(slice(n) for n in parameter.shape)
        parameter.data = weights[name][size].detach().clone()
    check(net, dims, narrow)


def test_sums_over_the_channels_of_the_input_are_refused():
    net = around(NonLocal2d(32, mode='gaussian'), 2)
    with pytest.raises(ConfigError, match='NonLocal2d'):
        slim(net)


@pytest.mark.parametrize('kind', ['0010', '1100', '1111'])
def test_generalized_attention(kind):
    """Blind to half of its input, which is zero."""
    block = GeneralizedAttention(
        32, num_heads=4, attention_type=kind, kv_stride=2
    )
    net = around(block, 2)
    whole = copy.deepcopy(net[1])

    def narrow(x):
        return whole(torch.cat([x, torch.zeros_like(x)], 1))[:, :16]

    check(net, 2, narrow)
