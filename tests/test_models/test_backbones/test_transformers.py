"""Transformers of every kind beside the stock class, at every width.

A head, or a hidden neuron, that the layer behind it does not look at is as
good as none: a stock network with these columns zeroed has to give what ours
gives without computing them.
"""

import copy
import pickle
from functools import lru_cache

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from tiny_transformers import TINY, loss_of, randomise, single_inputs, tensors
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mutualnet_mm import ConfigError, UsageError
from mutualnet_mm.models import Slimmable
from mutualnet_mm.slimmable import (
    SlimLayer,
    active_width,
    count_module_macs,
    count_module_params,
    make_static,
)
from mutualnet_mm.slimmable.heads import SlimHeads
from mutualnet_mm.slimmable.verify import already_verified

NAMES = sorted(TINY)
# Without attention.
# Numbers that are pooled globally, which count, too.
POOLED = {'mmpretrain.MixMIMTransformer': 64 * 16}
UNPICKLED = ('mmpretrain.RevVisionTransformer',)  # nor is the stock class
HEADLESS = ('mmpretrain.MlpMixer',)


def build(name, make, **settings):
    scope, _, _ = name.partition('.')
    pytest.importorskip(scope)
    settings = dict(copy.deepcopy(TINY[name][0]), **settings)
    with DefaultScope.overwrite_default_scope(scope):
        return make(name, settings)


def stock_network(name, **settings):
    return build(
        name, lambda name, kw: MODELS.build(dict(kw, type=name)), **settings
    )


def slim_network(name, **settings):
    return build(
        name, lambda name, kw: Slimmable(wraps=name, **kw), **settings
    )


@lru_cache(maxsize=None)
def pair(name):
    """Ours and the stock network, of the same random weights."""
    torch.manual_seed(0)
    ours, stock = slim_network(name), randomise(stock_network(name))
    assert ours.state_dict().keys() == stock.state_dict().keys()
    # All fits; the stock class drops tables that it computes (SwinV2).
    for a, b in ((ours, stock), (stock, ours)):
        missing, surplus = a.load_state_dict(b.state_dict(), strict=False)
        assert not surplus
        assert all('relative_' in key for key in missing)
    for net in (ours, stock):
        single_inputs(net.double())
        net.eval()  # not chained: some return nothing
    return ours, stock, torch.randn(TINY[name][1], dtype=torch.double)


def kept(heads, width):
    """Heads of a width: the nearest number, never below 90 %."""
    number = max(1, int(heads * width + 0.5))
    return min(heads, number + (number < 0.9 * heads * width))


def masked(name, width):
    """The stock network, blind to what ``width`` leaves out; and where."""
    ours, stock, x = pair(name)
    inputs, handles = {}, []
    for path, layer in ours.named_modules():
        if isinstance(layer, SlimLayer) and hasattr(layer, 'weight'):

            def note(layer, args, path=path):
                axis = -1 if isinstance(layer, nn.Linear) else 1
                number = args[0].shape[axis]
                inputs[path] = list(range(number))
                if layer.slim_inputs is not None:  # behind a concatenation
                    places = layer.columns(number)
                    inputs[path] = [i for ab in places for i in range(*ab)]

            handles.append(layer.register_forward_pre_hook(note))
    with torch.no_grad(), active_width(ours, width):
        ours(x)
    for handle in handles:
        handle.remove()
    for path, module in ours.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            heads, channels = module.num_heads, module.embed_dim
            heads = kept(heads, width) if heads > 1 else heads
            number = heads * channels // module.num_heads
            inputs[f'{path}.out_proj'] = list(range(number))
    net, columns = copy.deepcopy(stock), {}
    for path, seen in inputs.items():
        weight = net.get_submodule(path).weight
        if weight.dim() > 1 and weight.shape[1] > len(seen):
            others = [i for i in range(weight.shape[1]) if i not in seen]
            weight.data[:, others] = 0
            columns[f'{path}.weight'] = others
    return net, columns


@pytest.mark.sweep(8)
@pytest.mark.parametrize('name', NAMES)
def test_full_width_is_the_stock_network(name):
    ours, stock, x = pair(name)
    assert isinstance(ours, type(stock))
    with torch.no_grad():
        for a, b in zip(tensors(ours(x)), tensors(stock(x))):
            assert torch.equal(a, b)


@pytest.mark.sweep(8)
@pytest.mark.parametrize('name', NAMES)
def test_narrow_equals_the_stock_network_that_is_blind(name):
    ours, _, x = pair(name)
    width = 0.4
    stock, columns = masked(name, width)
    assert columns
    swapped = [m for m in ours.modules() if isinstance(m, SlimHeads)]
    assert bool(swapped) == (name not in HEADLESS)
    with active_width(ours, width):
        found = ours(x)
        loss_of(found).backward()
        for heads in swapped:
            assert heads.active_heads == kept(heads.num_heads, width)
    expected = stock(x)
    loss_of(expected).backward()
    for a, b in zip(tensors(found), tensors(expected)):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
    for key, theirs in stock.named_parameters():
        grad = ours.get_parameter(key).grad
        if theirs.grad is None or not theirs.grad.any():
            assert grad is None or not grad.any(), key
            continue
        if key in columns:
            theirs.grad[:, columns[key]] = 0
        torch.testing.assert_close(
            grad, theirs.grad, rtol=1e-6, atol=1e-8, msg=key
        )
    ours.zero_grad()


@pytest.mark.sweep(6)
@pytest.mark.parametrize('name', NAMES)
def test_static_form(name):
    """Is what the subnet is, and holds and computes what is counted."""
    ours, _, x = pair(name)
    static = copy.deepcopy(ours)
    with active_width(ours, 0.4), torch.no_grad():
        expected = tensors(ours(x))
        params = count_module_params(ours, x)
        macs = count_module_macs(ours, x)
    with active_width(static, 0.4):
        make_static(static, x)
    assert not any(isinstance(m, SlimLayer) for m in static.modules())
    static = copy.deepcopy(static)
    with torch.no_grad():
        found = tensors(static(x))
        with FlopCounterMode(display=False) as counter:
            static.to('meta')(x.to('meta'))
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert sum(p.numel() for p in static.parameters()) == params
    assert counter.get_total_flops() // 2 + POOLED.get(name, 0) == macs
    whole = sum(p.numel() for p in ours.parameters())
    assert params < 0.9 * whole


@pytest.mark.parametrize('name', NAMES)
def test_copies(name):
    """Deep copies and pickles have a width of their own."""
    ours, _, x = pair(name)
    with active_width(ours, 0.4), torch.no_grad():
        expected = tensors(ours(x))
    twins = [copy.deepcopy(ours)]
    if name not in UNPICKLED:
        twins.append(pickle.loads(pickle.dumps(ours)))
    for twin in twins:
        assert type(twin) is type(ours)
        with active_width(twin, 0.4), torch.no_grad():
            for a, b in zip(tensors(twin(x)), expected):
                assert torch.equal(a, b)
    with torch.no_grad():
        whole = tensors(ours(x))
    assert not torch.equal(whole[0], expected[0])


@pytest.mark.parametrize('name', NAMES)
def test_outputs_keep_their_channels(name):
    ours, _, x = pair(name)
    with torch.no_grad():
        whole = tensors(ours(x))
        with active_width(ours, 0.3):
            narrow = tensors(ours(x))
    assert [t.shape for t in narrow] == [t.shape for t in whole]
    assert all(t.isfinite().all() for t in narrow)


def test_a_backward_pass_of_its_own_is_refused():
    name = 'mmpretrain.RevVisionTransformer'
    with pytest.raises(ConfigError, match='no_custom_backward=True'):
        slim_network(name, no_custom_backward=False)


def test_built_for_one_size():
    """A mixer of tokens takes 48 x 48 pixels alone, and is tried on them."""
    ours, _, _ = pair('mmpretrain.MlpMixer')
    assert ours.slim_joints.input_shape == (1, 3, 48, 48)


def test_shared_position_biases():
    """Those of all layers lie in the backbone: heads take theirs."""
    name = 'mmpretrain.BEiTViT'
    settings = dict(use_shared_rel_pos_bias=True, use_rel_pos_bias=False)
    net = randomise(slim_network(name, **settings)).double()
    net.eval()
    x = torch.randn(1, 3, 48, 48, dtype=torch.double)
    blind = copy.deepcopy(net)
    for layer in blind.layers:
        layer.attn.proj.weight.data[:, 32:] = 0
        layer.ffn.layers[1].weight.data[:, 48:] = 0
    static = copy.deepcopy(net)
    with active_width(static, 0.5):
        make_static(static, x)
    with torch.no_grad(), active_width(net, 0.5):
        found, expected = net(x)[0], blind(x)[0]
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(static(x)[0], expected)


def test_pretrained_at_another_size(tmp_path):
    """Position embeddings are interpolated, as the stock class does it."""
    name, path = 'mmpretrain.VisionTransformer', str(tmp_path / 'vit.pth')
    torch.save(randomise(stock_network(name, img_size=64)).state_dict(), path)
    loading = dict(type='Pretrained', checkpoint=path)
    ours, stock = (
        make(name, img_size=48, init_cfg=loading)
        for make in (slim_network, stock_network)
    )
    for net in (ours, stock):
        net.init_weights()
    for key, tensor in stock.state_dict().items():
        assert torch.equal(ours.state_dict()[key], tensor), key


def test_pretrained_of_another_size_of_layers(tmp_path):
    name, path = 'mmpretrain.VisionTransformer', str(tmp_path / 'vit.pth')
    wide = dict(TINY[name][0]['arch'], feedforward_channels=128)
    torch.save(stock_network(name, arch=wide).state_dict(), path)
    net = slim_network(name, init_cfg=dict(type='Pretrained', checkpoint=path))
    with pytest.raises(UsageError, match='ffn.layers.0.0.weight is'):
        net.init_weights()


def test_pretrained_weights_with_other_names(tmp_path):
    """Those of Swin's own code, which mmdet converts."""
    name, path = 'mmdet.SwinTransformer', str(tmp_path / 'swin.pth')
    first = torch.randn(128, 32)
    table = torch.randn(49, 2)
    torch.save(
        {
            'model': {
                'layers.0.blocks.0.mlp.fc1.weight': first,
                'layers.0.blocks.0.attn.relative_position_bias_table': table,
            }
        },
        path,
    )
    net = slim_network(
        name,
        convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint=path),
    )
    net.init_weights()
    block = net.stages[0].blocks[0]
    assert torch.equal(block.ffn.layers[0][0].weight, first)
    found = block.attn.w_msa.relative_position_bias_table
    assert torch.equal(found, table)


SMALL_GNNS = dict(
    Vig=dict(num_blocks=1, channels=64),
    PyramidVig=dict(blocks=[1, 1, 1, 1], channels=[32, 64, 128, 256]),
)


@pytest.mark.parametrize('name', SMALL_GNNS)
def test_the_stem_of_a_vision_gnn_learns(enter_scope, monkeypatch, name):
    """That of the stock class stays in evaluation mode, whatever is set."""
    enter_scope('mmpretrain')
    stock = MODELS.get(f'mmpretrain.{name}')
    monkeypatch.setitem(
        stock.arch_settings,
        'tiny',
        dict(stock.arch_settings['tiny'], **SMALL_GNNS[name]),
    )
    settings = dict(type='mutualnet_mm.Slimmable', wraps=name, arch='tiny')
    for frozen in (-1, 0, 1):
        with already_verified():
            net = MODELS.build(dict(settings, frozen_stages=frozen))
        net.train()
        assert net.stem.training == (frozen < 1)
        net.eval()
        assert not net.stem.training
