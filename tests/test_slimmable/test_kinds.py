"""Every kind of layer of PyTorch beside a stock one of the narrow sizes."""

import copy
from importlib import import_module

import pytest
import torch
import torchvision.models as zoo
from narrow_layers import Case, first, last, slim
from torch import nn
from torch.testing import assert_close

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    LayerRule,
    PerChannel,
    SlimLayer,
    SlimState,
    active_width,
    convert,
    count_module_macs,
    make_static,
    register_layer,
    verify_slicing,
)
from mutualnet_mm.slimmable.channels import Piece

# The package has a function of this name.
convert_module = import_module('mutualnet_mm.slimmable.convert')


class Padded(nn.Conv2d):
    """Pads for itself, as TensorFlow's networks do."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class Normed(nn.Linear):
    """With rows of length one."""

    def forward(self, x):
        weight = nn.functional.normalize(self.weight, dim=1)
        return nn.functional.linear(x, weight, self.bias)


CASES = {
    'group-norm': Case(
        lambda c, _: nn.GroupNorm(c // 4, c), first(5, 4), follows=True
    ),
    'group-norm-1d': Case(
        lambda c, _: nn.GroupNorm(c // 8, c), first(5), follows=True
    ),
    'group-norm-3d': Case(
        lambda c, _: nn.GroupNorm(c // 2, c), first(2, 3, 4), follows=True
    ),
    'one-group': Case(
        lambda c, _: nn.GroupNorm(1, c), first(5, 4), follows=True
    ),
    'layer-norm': Case(
        lambda c, _: nn.LayerNorm(c, eps=1e-3), last(5, 4), follows=True
    ),
    'layer-norm-of-vectors': Case(
        lambda c, _: nn.LayerNorm((c, 1, 1)), first(1, 1), follows=True
    ),
    'layer-norm-of-maps': Case(
        lambda c, _: zoo.convnext.LayerNorm2d(c), first(5, 4), follows=True
    ),
    'instance-norm-1d': Case(
        lambda c, _: nn.InstanceNorm1d(c, affine=True), first(5), follows=True
    ),
    'instance-norm': Case(
        lambda c, _: nn.InstanceNorm2d(c, affine=True),
        first(5, 4),
        follows=True,
    ),
    'instance-norm-3d': Case(
        lambda c, _: nn.InstanceNorm3d(c, affine=True),
        first(2, 3, 4),
        follows=True,
    ),
    'prelu': Case(lambda c, _: nn.PReLU(c), first(5, 4), follows=True),
    'depthwise-transposed': Case(
        lambda c, _: nn.ConvTranspose2d(c, c, 3, 2, groups=c),
        first(5, 4),
        follows=True,
    ),
    'grouped-transposed-3d': Case(
        lambda c, _: nn.ConvTranspose3d(c, c, 2, 2, groups=c // 4),
        first(2, 3, 4),
        follows=True,
    ),
    'depthwise-padded': Case(
        lambda c, _: Padded(c, c, 3, groups=c), first(5, 4), follows=True
    ),
    'conv-1d': Case(lambda i, o: nn.Conv1d(i, o, 3, padding=1), first(6)),
    'transposed-1d': Case(
        lambda i, o: nn.ConvTranspose1d(i, o, 4, 2), first(5)
    ),
    'transposed': Case(
        lambda i, o: nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False),
        first(5, 4),
        run=lambda layer, x: layer(x, output_size=[11, 8]),
    ),
    'transposed-3d': Case(
        lambda i, o: nn.ConvTranspose3d(i, o, 3, (1, 2, 2)), first(2, 3, 4)
    ),
    'padded': Case(lambda i, o: Padded(i, o, 3, stride=2), first(6, 5)),
    'normed': Case(lambda i, o: Normed(i, o), last(5)),
}
NO_TENSORS = {
    'group-norm': (
        lambda c: nn.GroupNorm(c // 4, c, affine=False),
        first(5, 4),
    ),
    'one-group': (lambda c: nn.GroupNorm(1, c, affine=False), first(5, 4)),
    'layer-norm': (
        lambda c: nn.LayerNorm(c, elementwise_affine=False),
        last(5),
    ),
    'instance-norm': (nn.InstanceNorm2d, first(5, 4)),
    'one-slope': (lambda c: nn.PReLU(), first(5, 4)),
}


@pytest.mark.parametrize('joint', [False, True])
@pytest.mark.parametrize('name', CASES)
def test_narrow_layer(name, joint):
    CASES[name].check_narrow(joint)


@pytest.mark.parametrize('name', CASES)
def test_full_width_is_bit_equal(name):
    CASES[name].check_full()


@pytest.mark.parametrize('name', CASES)
def test_static_form_and_costs(name):
    case = CASES[name]
    macs, narrow = case.check_static()
    assert macs == count_module_macs(narrow, case.input(), forward=case.run)


@pytest.mark.parametrize('name', CASES)
def test_copies_and_pickles(name):
    CASES[name].check_copies()


@pytest.mark.parametrize('name', NO_TENSORS)
def test_narrow_layer_without_tensors_of_its_own(name):
    make, shape = NO_TENSORS[name]
    net = slim(make(24))
    x = torch.randn(shape(16))
    with active_width(net, 0.5):
        assert torch.equal(net(x), make(16)(x))
        make_static(net, x)
    assert str(net[0]) == str(make(16))


@pytest.mark.parametrize('name', [*CASES, *NO_TENSORS])
def test_an_unproven_layer_takes_whole_inputs(name):
    """In a narrow pass, as heads do behind a neck; not what is narrower."""
    if name in CASES:
        case = CASES[name]
        layer, shape, run = case.full(), case.shape, case.run
    else:
        make, shape = NO_TENSORS[name]
        layer, run = make(24).double(), lambda layer, x: layer(x)
    x = torch.randn(shape(24), dtype=torch.double)
    expected = run(layer, x)
    state = SlimState()
    net = nn.Sequential(layer)
    convert(net, state, default=LayerRule(fixed=True))
    net[0].slim_unproven = 'head'
    with state.activate(0.5):
        assert_close(run(net[0], x), expected)
        if name == 'one-slope':  # which is for any channels
            return
        with pytest.raises(ConfigError, match='"head" did not run'):
            run(net[0], torch.randn(shape(16), dtype=torch.double))


def test_groups_of_a_transposed_convolution_that_narrow_each():
    full = nn.ConvTranspose2d(32, 64, 2, 2, groups=2).double()
    net = nn.Sequential(full)
    rule = LayerRule(parts=2, narrow_groups=True)
    convert(net, SlimState(), {'0': rule})
    narrow = nn.ConvTranspose2d(16, 32, 2, 2, groups=2).double()
    inputs, outputs = [*range(8), *range(16, 24)], [*range(16), *range(32, 48)]
    narrow.weight.data = full.weight.data[inputs, :16].clone()
    narrow.bias.data = full.bias.data[outputs].clone()
    piece = dict(made=32, rule=LayerRule(parts=2), block=16)
    net[0].slim_inputs = (Piece(16, **piece),) * 2
    piece = dict(made=64, rule=rule, block=32)
    net[0].slim_outputs = (Piece(32, **piece),) * 2
    x = torch.randn(2, 16, 4, 4, dtype=torch.double)
    with active_width(net, 0.5):
        assert_close(net(x), narrow(x))
        net(x).square().sum().backward()
    narrow(x).square().sum().backward()
    assert_close(full.weight.grad[inputs, :16], narrow.weight.grad)
    assert full.weight.grad.count_nonzero() == narrow.weight.numel()


@pytest.mark.parametrize('name', ['group-norm', 'padded', 'transposed'])
def test_a_narrow_pass_sets_nothing(name):
    """Threads may run one network."""
    case = CASES[name]
    net = slim(case.full())
    before = dict(vars(net[0]))
    with active_width(net, 0.5):
        case.run(net[0], case.input())
    assert all(vars(net[0])[key] is value for key, value in before.items())


def test_groups_in_part_are_refused():
    net = slim(nn.GroupNorm(6, 24))
    with active_width(net, 0.5), pytest.raises(
        ConfigError, match='14 channels does not fill whole groups of 4'
    ):
        net(torch.randn(1, 14, 3, 3))


def test_what_a_kind_refuses():
    net = nn.Sequential(nn.LayerNorm((8, 4, 4)))
    with pytest.raises(ConfigError, match=r'normalises over \(8, 4, 4\)'):
        convert(net, SlimState())
    convert(net, SlimState(), strict=False)
    assert type(net[0]) is nn.LayerNorm


class OwnStatistics(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1


@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize(
    'layer, said',
    [
        (nn.InstanceNorm2d(8, track_running_stats=True), 'leave out track_'),
        (OwnStatistics(8), 'with statistics'),
    ],
)
def test_statistics_of_all_subnets_are_not_mixed(layer, said, strict):
    """Left as it is, such a layer would update them in every pass."""
    kind = type(layer)
    with pytest.raises(ConfigError, match=said):
        convert(nn.Sequential(layer), SlimState(), strict=strict)
    assert type(layer) is kind


NORMALISATIONS = {
    'weight_norm': nn.utils.parametrizations.weight_norm,
    'spectral_norm': nn.utils.parametrizations.spectral_norm,
    'old_weight_norm': nn.utils.weight_norm,
    'old_spectral_norm': nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings('ignore:.*weight_norm. is deprecated')
@pytest.mark.parametrize('name', NORMALISATIONS)
def test_weights_that_are_computed_are_refused(name):
    net = nn.Sequential(NORMALISATIONS[name](nn.Conv2d(8, 8, 3)))
    x = torch.randn(1, 8, 5, 5)
    with pytest.raises(ConfigError, match='weight from other tensors'):
        convert(net, SlimState())
    net.eval()
    before = net(x)
    convert(net, SlimState(), strict=False)
    assert torch.equal(net(x), before)


class RMSNorm(nn.Module):
    """A kind of layer that nobody knows."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.rand(channels))

    def forward(self, x):
        assert x.shape[1] == self.channels
        size = x.square().mean(1, keepdim=True).sqrt()
        return x / size * self.weight[:, None, None]


class SlimRMSNorm(PerChannel):
    tensor_names = ('weight',)
    blind = PerChannel.blind_apart

    def set_channels(self, inputs, outputs):
        self.channels = inputs


@pytest.mark.parametrize('by_name', [False, True])
def test_a_kind_of_ones_own(monkeypatch, by_name):
    """As docs/layers.md registers it."""
    classes = dict(convert_module._SLIM_CLASSES)
    monkeypatch.setattr(convert_module, '_SLIM_CLASSES', classes)
    register_layer(f'{__name__}.RMSNorm' if by_name else RMSNorm, SlimRMSNorm)
    Case(lambda c, _: RMSNorm(c), first(5, 4), follows=True).check_narrow()
    net = nn.Sequential(nn.Conv2d(3, 64, 1), RMSNorm(64), nn.Conv2d(64, 8, 1))
    verify_slicing(slim_copy(net))


def test_pooling_over_channels_is_not_believed(monkeypatch):
    """Without ``blind`` the norm would be proven against another one."""
    classes = dict(convert_module._SLIM_CLASSES)
    monkeypatch.setattr(convert_module, '_SLIM_CLASSES', classes)

    class Unblinded(SlimRMSNorm):
        blind = SlimLayer.blind

    register_layer(RMSNorm, Unblinded)
    net = nn.Sequential(nn.Conv2d(3, 64, 1), RMSNorm(64), nn.Conv2d(64, 8, 1))
    with pytest.raises(ConfigError, match='"1" .RMSNorm. is not that'):
        verify_slicing(slim_copy(net))


def slim_copy(net):
    net = copy.deepcopy(net)
    convert(net, SlimState())
    return net
