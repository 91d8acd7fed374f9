"""OpenMMLab's kinds of layers beside stock ones of the narrow sizes."""

import pytest
import torch
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.cnn.bricks.conv_ws import ConvAWS2d, ConvWS2d
from narrow_layers import Case, first, last, slim
from torch import nn

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    active_width,
    convert,
    count_module_macs,
    make_static,
    verify_slicing,
)

ops = pytest.importorskip('mmcv.ops')
ssd_neck = pytest.importorskip('mmdet.models.necks.ssd_neck')
hornet = pytest.importorskip('mmpretrain.models.backbones.hornet')
norms = pytest.importorskip('mmpretrain.models.utils.norm')


def channels_last(layer, x):
    return layer(x, data_format='channel_last')


def moved(number):
    """Run with offsets, and weights of each place if ``number`` is 3."""
    generator = torch.Generator().manual_seed(0)
    size = (2, number * 9, 6, 5)
    given = torch.rand(size, generator=generator, dtype=torch.double)

    def run(layer, x):
        return layer(x, *given.to(x.device).split([18, 9][: number - 1], 1))

    return run


MAKES = {
    'padded': Case(
        lambda i, o: Conv2dAdaptivePadding(i, o, 3, 2), first(6, 5)
    ),
    'standardised': Case(
        lambda i, o: ConvWS2d(i, o, 3, padding=1), first(6, 5)
    ),
    'standardised-aws': Case(
        lambda i, o: ConvAWS2d(i, o, 3, 2, bias=False), first(6, 5)
    ),
    'deformed': Case(
        lambda i, o: ops.DeformConv2d(i, o, 3, padding=1),
        first(6, 5),
        run=moved(2),
    ),
    'deformed-pack': Case(
        lambda i, o: ops.DeformConv2dPack(i, o, 3, 2, 1), first(6, 5)
    ),
    'modulated': Case(
        lambda i, o: ops.ModulatedDeformConv2d(i, o, 3, padding=1),
        first(6, 5),
        run=moved(3),
    ),
    'modulated-pack': Case(
        lambda i, o: ops.ModulatedDeformConv2dPack(i, o, 3, 1, 2, 2),
        first(6, 5),
    ),
}
FOLLOWS = {
    'padded-depthwise': Case(
        lambda c, _: Conv2dAdaptivePadding(c, c, 3, 2, groups=c),
        first(6, 5),
        follows=True,
    ),
    'standardised-groups': Case(
        lambda c, _: ConvWS2d(c, c, 3, groups=c // 4),
        first(6, 5),
        follows=True,
    ),
    'aws-groups': Case(
        lambda c, _: ConvAWS2d(c, c, 3, groups=c // 4),
        first(6, 5),
        follows=True,
    ),
    'modulated-groups': Case(
        lambda c, _: ops.ModulatedDeformConv2d(
            c, c, 3, padding=1, groups=c // 4
        ),
        first(6, 5),
        follows=True,
        run=moved(3),
    ),
    'layer-norm-2d': Case(
        lambda c, _: norms.LayerNorm2d(c), first(4, 3), follows=True
    ),
    'layer-norm-2d-last': Case(
        lambda c, _: norms.LayerNorm2d(c),
        last(4, 3),
        follows=True,
        run=channels_last,
    ),
    'grn': Case(lambda c, _: norms.GRN(c), first(4, 3), follows=True),
    'grn-last': Case(
        lambda c, _: norms.GRN(c), last(4, 3), follows=True, run=channels_last
    ),
    'hornet': Case(
        lambda c, _: hornet.HorNetLayerNorm(c, data_format='channels_first'),
        first(4, 3),
        follows=True,
    ),
    'hornet-last': Case(
        lambda c, _: hornet.HorNetLayerNorm(c), last(4, 3), follows=True
    ),
    'l2': Case(lambda c, _: ssd_neck.L2Norm(c), first(4, 3), follows=True),
}
CASES = {**MAKES, **FOLLOWS}
# These compute in single precision, whatever comes.
SINGLE = ('l2',)


@pytest.mark.parametrize('joint', [False, True])
@pytest.mark.parametrize('name', CASES)
def test_narrow_layer(name, joint):
    CASES[name].check_narrow(joint, 1e-5 if name in SINGLE else 1e-9)


@pytest.mark.parametrize('name', CASES)
def test_full_width_is_bit_equal(name):
    CASES[name].check_full()


@pytest.mark.parametrize('name', CASES)
def test_static_form_and_costs(name):
    case = CASES[name]
    macs, narrow = case.check_static()
    x = case.input()
    out = case.run(narrow, x)
    weight = next(narrow.parameters())
    expected = 0
    if weight.dim() == 4:  # also of the convolution that makes offsets
        rows = [p.numel() for p in narrow.parameters() if p.dim() == 4]
        expected = out[:, 0].numel() * sum(rows)
    assert macs == expected


@pytest.mark.parametrize('name', CASES)
def test_copies_and_pickles(name):
    CASES[name].check_copies()


def test_groups_of_two_kinds_are_refused():
    layer = ops.DeformConv2dPack(8, 8, 3, groups=4, deform_groups=2)
    with pytest.raises(ConfigError, match='in 4 groups and moves .* in 2: '):
        convert(nn.Sequential(layer), SlimState())


@pytest.mark.parametrize(
    'kind', ['DeformConv2dPack', 'ModulatedDeformConv2dPack']
)
def test_groups_that_move_apart_narrow_each(kind):
    """Every channel keeps the offsets of its group."""

    def make(channels):
        layer = getattr(ops, kind)(channels, 32, 3, padding=1, deform_groups=2)
        return nn.Sequential(nn.Conv2d(3, channels, 3), layer).double()

    net = make(64)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    narrow = make(32)
    kept = [*range(16), *range(32, 48)]
    for key, tensor in narrow.state_dict().items():
        whole = net.state_dict()[key]
        whole = whole[kept] if key.startswith('0.') else whole
        tensor.copy_(
            whole
            if key.startswith('0.') or whole.dim() < 4
            else whole[:, kept]
        )
    convert(net, SlimState(), {'1': LayerRule(fixed=True)})
    verify_slicing(net)
    x = torch.randn(2, 3, 7, 7, dtype=torch.double)
    with active_width(net, 0.5):
        torch.testing.assert_close(net(x), narrow(x), rtol=1e-9, atol=1e-9)
        make_static(net, x)
    assert torch.equal(net(x), narrow(x))


def test_switchable_atrous_convolution_is_refused():
    with pytest.raises(ConfigError, match='other than the ConvAWS2d'):
        convert(nn.Sequential(ops.SAConv2d(8, 8, 3)), SlimState())


def test_batch_norm_is_not_folded_into_a_standardised_weight():
    """Standardising would undo it; into a padded convolution it can be."""
    x = torch.randn(2, 3, 6, 5, dtype=torch.double)
    for make, folded in ((ConvWS2d, False), (Conv2dAdaptivePadding, True)):
        net = nn.Sequential(make(3, 16, 3), nn.BatchNorm2d(16))
        net[1].running_var.uniform_(0.5, 1.5)
        net[1].weight.data.uniform_(0.5, 1.5)
        net.double().eval()
        convert(net, SlimState())
        with active_width(net, 0.5), torch.no_grad():
            expected = net(x)
            make_static(net, x, fuse_bn=True)
        assert isinstance(net[1], nn.Identity) is folded
        torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize('data_format', ['channels_first', 'channels_last'])
def test_layer_scale_holds_a_vector(data_format):
    layer = hornet.LayerScale(24, data_format=data_format)
    net = nn.Sequential(nn.Conv2d(3, 24, 1), layer)
    convert(net, SlimState())
    assert list(net[1].narrowed()) == ['weight']


def test_counting_does_not_need_the_operator():
    """Deformable convolutions do not run on the meta device."""
    net = slim(ops.DeformConv2dPack(24, 32, 3, padding=1))
    x = torch.empty(1, 24, 8, 8)
    assert count_module_macs(net, x) == 64 * 9 * 24 * (32 + 18)
    x = torch.empty(1, 16, 8, 8)
    with active_width(net, 0.5):
        assert count_module_macs(net, x) == 64 * 9 * 16 * (16 + 18)
