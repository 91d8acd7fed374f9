"""Networks of other layers than batch-normalised convolutions.

At half the width each is the stock network that is built of half as many
channels and gets the leading part of every tensor.
"""

import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    active_width,
    count_module_macs,
    count_module_params,
    make_static,
)


def convnext(scale, **settings):
    channels = [32 * scale, 48 * scale, 64 * scale, 80 * scale]
    return dict(
        type='mmpretrain.ConvNeXt',
        arch=dict(depths=[1, 1, 2, 1], channels=channels),
        out_indices=(0, 3),
        gap_before_final_norm=False,
        **settings,
    )


def pooling(scale, name):
    dims = [32 * scale, 48 * scale, 64 * scale, 80 * scale]
    arch = dict(
        layers=[1, 1, 2, 1],
        embed_dims=dims,
        mlp_ratios=[4, 4, 4, 4],
        layer_scale_init_value=1e-5,
    )
    return dict(type=f'mmpretrain.{name}', arch=arch, in_patch_size=3)


def van(scale):
    arch = dict(
        embed_dims=[32 * scale, 48 * scale, 64 * scale, 80 * scale],
        depths=[1, 1, 2, 1],
        ffn_ratios=[8, 8, 4, 4],
    )
    return dict(type='mmpretrain.VAN', arch=arch)


def resnet(scale, project='mmdet', **settings):
    return dict(
        type=f'{project}.ResNet',
        depth=50,
        base_channels=8 * scale,
        stem_channels=8 * scale,
        **settings,
    )


def deformed(scale, version, **settings):
    return resnet(
        scale,
        norm_eval=False,
        dcn=dict(type=version, deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, False),  # its maps are too small
        **settings,
    )


def grouped(scale, **settings):
    """Groups of a quarter of the full network's channels."""
    norm = dict(type='GN', num_groups=2 * scale)
    return resnet(scale, norm_cfg=norm, **settings)


CASES = {
    'convnext': convnext,
    'convnext-v2': lambda scale: convnext(
        scale, use_grn=True, layer_scale_init_value=0.0
    ),
    'convnext-convolutions': lambda scale: convnext(
        scale, linear_pw_conv=False, use_grn=True
    ),
    'poolformer': lambda scale: pooling(scale, 'PoolFormer'),
    'riformer': lambda scale: pooling(scale, 'RIFormer'),
    'van': van,
    'group-norm': grouped,
    'group-norm-standardised': lambda scale: grouped(
        scale, conv_cfg=dict(type='ConvWS')
    ),
    'instance-norm': lambda scale: resnet(
        scale, 'mmpretrain', norm_cfg=dict(type='IN2d', affine=True)
    ),
    'aws': lambda scale: resnet(scale, conv_cfg=dict(type='ConvAWS')),
    'deformed': lambda scale: deformed(scale, 'DCN'),
    'modulated': lambda scale: deformed(scale, 'DCNv2'),
}


def randomise(net):
    """Nothing is alike in all channels, or too small to be seen."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if tensor.dim() > 1 and 'weight_' not in name:
            std = tensor[0].numel() ** -0.5
            tensor.data.normal_(0, std, generator=generator)
        elif tensor.dim():
            tensor.data.uniform_(0.5, 1.5, generator=generator)
    net.double().eval()  # not chained: stock backbones return nothing


def stock(settings):
    net = MODELS.build(settings)
    randomise(net)
    return net


@pytest.fixture(scope='module')
def built():
    return {}


@pytest.fixture(params=CASES)
def pair(request, built, enter_scope):
    """The slim network, and the stock one of half as many channels."""
    make = CASES[request.param]
    enter_scope('mmpretrain')
    if request.param not in built:
        settings = make(2)
        name = settings.pop('type')
        if '.' in name:  # mmdet is not always there
            pytest.importorskip(name.partition('.')[0])
        kind = 'mutualnet_mm.Slimmable'
        net = MODELS.build(dict(settings, type=kind, wraps=name))
        randomise(net)
        half = stock(make(1))
        for key, tensor in half.state_dict().items():
            whole = net.state_dict()[key]
            tensor.copy_(whole[tuple(map(slice, tensor.shape))])
        built[request.param] = net, half, stock(make(2))
    return built[request.param]


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 64, 64, dtype=torch.double, generator=generator)


@pytest.mark.sweep(5)
def test_half_the_width(pair, x):
    net, half, _ = map(copy.deepcopy, pair)
    with active_width(net, 0.5):
        found = net(x)
        sum(out.square().sum() for out in found).backward()
    expected = half(x)
    sum(out.square().sum() for out in expected).backward()
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    for name, parameter in half.named_parameters():
        grad = net.get_parameter(name).grad
        if parameter.grad is None:
            assert grad is None
            continue
        part = grad[tuple(map(slice, parameter.shape))]
        scale = parameter.grad.abs().max()
        assert (part - parameter.grad).abs().max() <= 1e-8 * scale, name
        assert grad.count_nonzero() == part.count_nonzero(), name


@pytest.mark.sweep(4)
def test_full_width(pair, x):
    """Bit-equal to the stock network, with the same keys."""
    net, _, full = pair
    assert list(net.state_dict()) == list(full.state_dict())
    full.load_state_dict(net.state_dict())
    with torch.no_grad():
        for ours, theirs in zip(net(x), full(x)):
            assert torch.equal(ours, theirs)


@pytest.mark.sweep(3)
@pytest.mark.parametrize('name', CASES)
def test_initial_weights(enter_scope, name):
    """Those of the stock network: layers are found by their class."""
    enter_scope('mmpretrain')
    settings = CASES[name](1)
    stock_class = settings.pop('type')
    nets = []
    for wrapped in (False, True):
        kind = dict(type=stock_class)
        if wrapped:
            kind = dict(type='mutualnet_mm.Slimmable', wraps=stock_class)
        torch.manual_seed(0)
        nets.append(MODELS.build(dict(copy.deepcopy(settings), **kind)))
        torch.manual_seed(1)
        nets[-1].init_weights()
    ours, theirs = nets[1].state_dict(), nets[0].state_dict()
    for key, tensor in theirs.items():
        assert torch.equal(ours[key], tensor), key


@pytest.mark.sweep(3)
def test_static_form_and_costs(pair, x):
    net, half, _ = pair
    net = copy.deepcopy(net)
    with active_width(net, 0.5):
        params = count_module_params(net, x)
        macs = count_module_macs(net, x)
        make_static(net, x)
    assert params == sum(p.numel() for p in half.parameters())
    assert macs == sum(convolution_macs(half, x))
    state = net.state_dict()
    for name, tensor in half.state_dict().items():
        assert torch.equal(state[name], tensor), name
    with torch.no_grad():
        for ours, theirs in zip(net(x), half(x)):
            assert torch.equal(ours, theirs)


def convolution_macs(net, x):
    """Of every layer with a weight of two axes or more, as it runs."""
    macs, handles = [], []

    def note(layer, args, out):
        last = isinstance(layer, nn.Linear)
        places = out.numel() // out.shape[-1 if last else 1]
        macs.append(places * layer.weight.numel())

    for layer in net.modules():
        weight = getattr(layer, 'weight', None)
        if isinstance(weight, nn.Parameter) and weight.dim() > 1:
            handles.append(layer.register_forward_hook(note))
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return macs


def test_a_norm_of_many_groups_rounds_what_it_follows():
    """32 groups of 256 / 32 channels: multiples of 8 stay as they are."""
    block = nn.Sequential(
        ConvModule(3, 64, 3, norm_cfg=dict(type='GN', num_groups=4)),
        ConvModule(64, 256, 1, norm_cfg=dict(type='GN', num_groups=32)),
    )

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = block

        def forward(self, x):
            return (self.block(x),)

    net = MODELS.build(dict(type='mutualnet_mm.Slimmable', wraps=Net))
    x = torch.randn(1, 3, 8, 8)
    with active_width(net, 0.4):  # 25.6 and 102.4 channels
        assert net.block[0](x).shape[1] == 32  # of groups of 16
        assert net(x)[0].shape[1] == 104


@pytest.mark.parametrize(
    'settings, said',
    [
        (
            dict(
                type='DetectoRS_ResNet',
                depth=50,
                sac=dict(type='SAC', use_deform=True),
                stage_with_sac=(False, True, False, False),
                conv_cfg=dict(type='ConvAWS'),
            ),
            r'layer2\.0\.conv2 \(SAConv2d\)',
        ),
        (
            dict(
                type='TridentResNet',
                depth=50,
                num_branch=3,
                test_branch_idx=1,
                strides=(1, 2, 2),
                dilations=(1, 1, 1),
                trident_dilations=(1, 2, 3),
                out_indices=(2,),
                num_stages=3,
            ),
            r'layer3\.0\.conv2 \(TridentConv\)',
        ),
    ],
    ids=['switchable-atrous', 'trident'],
)
def test_layers_that_are_refused(enter_scope, settings, said):
    enter_scope('mmdet')
    name = settings['type']
    with pytest.raises(ConfigError, match=said):
        MODELS.build(
            dict(
                settings, type='mutualnet_mm.Slimmable', wraps=f'mmdet.{name}'
            )
        )
