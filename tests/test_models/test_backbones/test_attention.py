"""Attention of fewer heads beside loops over the heads that are kept."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_transformers import randomise
from torch import nn

from mutualnet_mm.models.backbones.attention import swap_heads
from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    active_channels,
    active_width,
    convert,
    make_static,
)
from mutualnet_mm.slimmable.channels import Piece

pytest.importorskip('mmpretrain')
from mmpretrain.models.utils import (  # noqa: E402
    ShiftWindowMSA,
    WindowMSA,
    WindowMSAV2,
)
from mmpretrain.models.utils.attention import (  # noqa: E402
    MultiheadAttention,
)

CHANNELS, HEADS = 24, 4
SIZE = CHANNELS // HEADS


class Holder(nn.Module):
    """Attention that is not the whole network."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, *args, **kwargs):
        return self.attention(*args, **kwargs)


def slimmed(attention):
    net = randomise(Holder(attention)).double().eval()
    state = SlimState()
    rules = {
        f'{name}.{path}': heads.rule
        for name, heads in swap_heads(net, state).items()
        for path in heads.heads.makers
    }
    convert(net, state, rules, LayerRule(fixed=True), strict=False)
    for layer in net.modules():  # what the trace of a whole network finds
        if rules and layer is getattr(net.attention, 'qkv', None):
            part_rows(layer)
    return net


def part_rows(layer):
    """Queries, keys and values narrow each."""
    rule = replace(layer.slim_rule, parts=3)
    piece = Piece(CHANNELS, 3 * CHANNELS, rule, CHANNELS)
    layer.slim_outputs, layer.slim_rule = (piece,) * 3, rule


def by_head(x, weight, bias, head):
    """One head's queries, keys or values, ``(N, length, channels)``."""
    rows = slice(head * SIZE, (head + 1) * SIZE)
    return x @ weight[rows].T + (0 if bias is None else bias[rows])


def attend(q, k, v, added=0):
    scores = q @ k.transpose(-2, -1) / SIZE**0.5 + added
    return scores.softmax(-1) @ v


def summed(results, weight, bias):
    """The results of the heads, each by its columns of the last layer."""
    total = bias
    for head, result in enumerate(results):
        columns = slice(head * SIZE, (head + 1) * SIZE)
        total = total + result @ weight[:, columns].T
    return total


def thirds(tensor):
    return (None,) * 3 if tensor is None else tensor.chunk(3)


def vit_by_hand(attention, x, heads):
    parts = zip(thirds(attention.qkv.weight), thirds(attention.qkv.bias))
    wq, wk, wv = parts
    results = [
        attend(*(by_head(x, *part, head) for part in (wq, wk, wv)))
        for head in range(heads)
    ]
    return summed(results, attention.proj.weight, attention.proj.bias)


def swin_by_hand(attention, x, heads, mask=None):
    """Windows of 3 x 3; the bias of two places by their distance."""
    parts = [*zip(thirds(attention.qkv.weight), thirds(attention.qkv.bias))]
    results = []
    for head in range(heads):
        bias = torch.zeros(9, 9, dtype=x.dtype)
        for i in range(9):
            for j in range(9):
                place = (i // 3 - j // 3 + 2) * 5 + i % 3 - j % 3 + 2
                table = attention.relative_position_bias_table
                bias[i, j] = table[place, head]
        added = bias if mask is None else bias + mask.repeat(2, 1, 1)
        q, k, v = (by_head(x, *part, head) for part in parts)
        results.append(attend(q, k, v, added))
    return summed(results, attention.proj.weight, attention.proj.bias)


WIDTHS = [(0.25, 1), (0.5, 2), (0.7, 3), (0.9, 4), (1.0, 4)]


@pytest.mark.parametrize('heads', [1, 2, 3, 4, 5, 10, 12, 16])
@pytest.mark.parametrize('rounding', ['paper', 'hardware'])
def test_whole_heads(heads, rounding):
    """The nearest number, at any size of a head, whatever the rounding."""
    rule = LayerRule(heads=heads)
    for width in (0.05, 0.25, 0.35, 0.5, 0.65, 0.95, 1.0):
        number = max(1, int(heads * width + 0.5))
        number += number < 0.9 * heads * width
        for size in (1, 3, 32, 80):
            for parts in (1, 3):
                channels = parts * heads * size
                found = active_channels(channels, width, 1.0, rule, rounding)
                assert found == parts * size * min(heads, number)


def compare(net, x, heads, width, expected, others=()):
    """Outputs, gradients, and the static form."""
    names, parameters = zip(*net.named_parameters())
    weigh = torch.arange(expected.numel(), dtype=x.dtype).cos()

    def gradients(out):
        loss = (out.flatten() * weigh).sum()
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    with active_width(net, width):
        found = net(x, *others)
        ours = gradients(found)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for name, a, b in zip(names, ours, gradients(expected)):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9, msg=name)
    params = sum(p.numel() for p in net.parameters())
    with active_width(net, width):
        make_static(net, x, *others)
    torch.testing.assert_close(net(x, *others), expected)
    left = CHANNELS - heads * SIZE
    assert params - sum(p.numel() for p in net.parameters()) >= (
        left * (3 * CHANNELS + 3 + CHANNELS)
    )


@pytest.mark.parametrize('width, heads', WIDTHS)
def test_of_a_vit(width, heads):
    net = slimmed(MultiheadAttention(CHANNELS, HEADS))
    x = torch.randn(2, 7, CHANNELS, dtype=torch.double)
    compare(net, x, heads, width, vit_by_hand(net.attention, x, heads))


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('width, heads', WIDTHS)
def test_of_windows(width, heads, masked):
    net = slimmed(WindowMSA(CHANNELS, (3, 3), HEADS))
    x = torch.randn(4, 9, CHANNELS, dtype=torch.double)
    mask = None
    if masked:  # for each of two windows of an image
        mask = torch.randn(2, 9, 9, dtype=torch.double)
    expected = swin_by_hand(net.attention, x, heads, mask)
    compare(net, x, heads, width, expected, (mask,))


def test_of_windows_that_are_shifted():
    """In its place, among what cuts and moves the windows."""
    shifted = ShiftWindowMSA(
        CHANNELS, HEADS, 3, shift_size=1, pad_small_map=True
    )
    net = slimmed(shifted)
    part_rows(net.attention.w_msa.qkv)
    x = torch.randn(1, 5 * 7, CHANNELS, dtype=torch.double)
    with torch.no_grad(), active_width(net, 0.5):
        found = net(x, (5, 7))
    with torch.no_grad():
        net.attention.w_msa.proj.weight[:, CHANNELS // 2 :] = 0
        torch.testing.assert_close(found, net(x, (5, 7)))


@pytest.mark.parametrize('width, heads', WIDTHS)
def test_of_swin_v2(width, heads):
    """Cosines, with a scale and a small network's biases for each head."""
    net = slimmed(WindowMSAV2(CHANNELS, (3, 3), HEADS))
    attention = net.attention
    x = torch.randn(4, 9, CHANNELS, dtype=torch.double)
    wq, wk, wv = thirds(attention.qkv.weight)
    table = attention.cpb_mlp[0](attention.relative_coords_table).relu()
    table = (table @ attention.cpb_mlp[2].weight.T).view(25, HEADS)
    index = attention.relative_position_index
    results = []
    for head in range(heads):
        q = by_head(x, wq, attention.q_bias, head)
        k = by_head(x, wk, None, head)
        v = by_head(x, wv, attention.v_bias, head)
        cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        scale = attention.logit_scale[head].clamp(max=4.605170185988091).exp()
        bias = 16 * table[:, head][index].sigmoid()
        results.append((cosines * scale + bias).softmax(-1) @ v)
    expected = summed(results, attention.proj.weight, attention.proj.bias)
    compare(net, x, heads, width, expected)


def torch_by_hand(attention, q, k, v, heads, added):
    parts = zip(
        thirds(attention.in_proj_weight), thirds(attention.in_proj_bias)
    )
    (wq, bq), (wk, bk), (wv, bv) = parts
    results = [
        attend(
            by_head(q, wq, bq, head),
            by_head(k, wk, bk, head),
            by_head(v, wv, bv, head),
            added[:, head],
        )
        for head in range(heads)
    ]
    out = attention.out_proj
    return summed(results, out.weight, out.bias)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize('weights', [True, False])
@pytest.mark.parametrize('width, heads', WIDTHS)
def test_of_torch(width, heads, weights, first, bias):
    """With masks of padding, of pairs and of heads; of three inputs."""
    attention = nn.MultiheadAttention(
        CHANNELS, HEADS, bias=bias, batch_first=first
    )
    net = slimmed(attention)
    with torch.no_grad():
        net.attention.out_proj.bias = (
            None if not bias else attention.out_proj.bias
        )
    q, k, v = (
        torch.randn(2, length, CHANNELS, dtype=torch.double)
        for length in (3, 5, 5)
    )
    padding = torch.tensor([[False] * 5, [False] * 4 + [True]])
    pairs = torch.randn(2 * HEADS, 3, 5, dtype=torch.double)
    added = pairs.view(2, HEADS, 3, 5).clone()
    added[1, :, :, 4] = -torch.inf
    inputs = (q, k, v) if first else (t.transpose(0, 1) for t in (q, k, v))
    inputs = [*inputs]
    with active_width(net, width):
        found, shares = net(
            *inputs,
            key_padding_mask=padding,
            attn_mask=pairs,
            need_weights=weights,
        )
    found = found if first else found.transpose(0, 1)
    if net.attention.out_proj.bias is None:
        net.attention.out_proj.bias = nn.Parameter(
            torch.zeros(CHANNELS, dtype=torch.double)
        )
    expected = torch_by_hand(net.attention, q, k, v, heads, added)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert (shares is not None) == weights
    if weights:
        torch.testing.assert_close(
            shares.sum(-1), torch.ones(2, 3, dtype=torch.double)
        )
        assert not shares[1, :, 4].any()


def test_masks_of_truth():
    net = slimmed(nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True))
    x = torch.randn(2, 4, CHANNELS, dtype=torch.double)
    later = torch.ones(4, 4, dtype=torch.bool).triu(1)
    added = torch.zeros(2, HEADS, 4, 4, dtype=torch.double)
    added[:, :, later] = -torch.inf
    expected = torch_by_hand(net.attention, x, x, x, 2, added)
    with active_width(net, 0.5):
        for need in (True, False):
            found = net(x, x, x, attn_mask=later, need_weights=need)[0]
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('width, heads', WIDTHS[:3])
def test_static_form_of_torch(width, heads):
    net = slimmed(nn.MultiheadAttention(CHANNELS, HEADS))
    x = torch.randn(3, 2, CHANNELS, dtype=torch.double)
    with active_width(net, width):
        expected = net(x, x, x)[0]
        make_static(net, x, x, x)
    attention = net.attention
    assert attention.in_proj_weight.shape == (3 * heads * SIZE, CHANNELS)
    assert attention.out_proj.weight.shape == (CHANNELS, heads * SIZE)
    assert attention.num_heads == heads
    torch.testing.assert_close(net(x, x, x)[0], expected)


@pytest.mark.parametrize(
    'settings',
    [dict(kdim=8), dict(add_bias_kv=True), dict(add_zero_attn=True)],
)
def test_other_forms_of_torch_stay_whole(settings):
    net = Holder(nn.MultiheadAttention(CHANNELS, HEADS, **settings))
    assert not swap_heads(net, SlimState())
    assert type(net.attention) is nn.MultiheadAttention


def test_one_head_stays_whole():
    net = Holder(MultiheadAttention(CHANNELS, 1))
    assert not swap_heads(net, SlimState())
