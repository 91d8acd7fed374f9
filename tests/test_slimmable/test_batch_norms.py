import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mutualnet_mm import UsageError
from mutualnet_mm.slimmable import SlimState, convert

NORMS = [
    (nn.BatchNorm1d, (8, 12)),
    (nn.BatchNorm1d, (4, 12, 5)),
    (nn.BatchNorm2d, (2, 12, 9, 9)),
    (nn.BatchNorm3d, (2, 12, 3, 9, 9)),
    (nn.SyncBatchNorm, (2, 12, 9, 9)),
]
OPTIONS = [{}, {'affine': False}, {'momentum': None, 'eps': 1e-2}]


def make(norm, channels, **options):
    layer = norm(channels, **options)
    for tensor in [*layer.parameters(), *layer.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5)
    return layer


def cut(layer, norm, channels, **options):
    """A stock layer that holds copies of the leading channels."""
    narrow = norm(channels, **options)
    for name, tensor in narrow.state_dict().items():
        full = layer.state_dict()[name]
        tensor.copy_(full[:channels] if full.dim() else full)
    return narrow


def slim(layer, width=1.0, track_stats=True):
    state = SlimState(track_stats=track_stats)
    convert(layer, state)
    state.set_width(width)
    return layer


def check_step(layer, narrow, shape):
    """One forward and backward pass of both agree."""
    x = torch.randn(shape) * 2 + 3
    ours, stock = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = layer(ours), narrow(stock)
    assert_close(out, expected)
    weights = torch.randn_like(expected)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_close(ours.grad, stock.grad)
    if layer.weight is not None:
        for name in ('weight', 'bias'):
            grad = getattr(layer, name).grad
            assert_close(grad[: shape[1]], getattr(narrow, name).grad)
            assert not grad[shape[1] :].any()


@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('norm, shape', NORMS)
def test_narrow_norm(norm, shape, training, options):
    layer = make(norm, 20, **options)
    narrow = cut(layer, norm, 12, **options).train(training)
    slim(layer, 0.6).train(training)
    check_step(layer, narrow, shape)


@pytest.mark.parametrize('momentum', [0.1, None])
@pytest.mark.parametrize('norm, shape', NORMS)
def test_running_statistics_move_as_in_stock(norm, shape, momentum):
    layer = make(norm, 20, momentum=momentum)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    narrow = cut(layer, norm, 12, momentum=momentum)
    slim(layer, 0.6)
    for _ in range(3):
        check_step(layer, narrow, shape)
    for name in ('running_mean', 'running_var'):
        value = getattr(layer, name)
        assert_close(value[:12], getattr(narrow, name))
        assert not torch.equal(value[:12], before[name][:12])
        assert torch.equal(value[12:], before[name][12:])
    assert layer.num_batches_tracked == narrow.num_batches_tracked == 3


@pytest.mark.parametrize('channels', [12, 20])
@pytest.mark.parametrize('norm, shape', NORMS)
def test_running_statistics_stay_if_not_tracked(norm, shape, channels):
    layer = make(norm, 20)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    narrow = cut(layer, norm, channels)
    slim(layer, 0.6, track_stats=False)
    check_step(layer, narrow, (shape[0], channels, *shape[2:]))
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert layer.track_running_stats


@pytest.mark.parametrize('track_stats', [False, True])
@pytest.mark.parametrize('norm, shape', NORMS)
def test_eval_never_moves_running_statistics(norm, shape, track_stats):
    layer = make(norm, 20)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    slim(layer, 0.6, track_stats).eval()(torch.randn(shape))
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize('training', [False, True])
def test_norm_without_running_statistics(training):
    layer = make(nn.BatchNorm2d, 20, track_running_stats=False)
    narrow = cut(layer, nn.BatchNorm2d, 12, track_running_stats=False)
    slim(layer, 0.6).train(training)
    narrow.train(training)
    check_step(layer, narrow, (2, 12, 5, 5))


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('norm, shape', NORMS)
def test_full_width_is_bit_equal(norm, shape, training):
    layer = make(norm, 12)
    stock = cut(layer, norm, 12).train(training)
    keys = list(stock.state_dict())
    slim(layer).train(training)
    x = torch.randn(shape)
    assert torch.equal(layer(x), stock(x))
    assert isinstance(layer, norm)
    assert layer.num_features == 12
    assert list(layer.state_dict()) == keys
    for name, value in layer.state_dict().items():
        assert torch.equal(value, stock.state_dict()[name]), name


def test_input_of_wrong_dimension_is_refused_as_in_stock():
    layer = slim(nn.BatchNorm2d(20), 0.6)
    with pytest.raises(ValueError, match='expected 4D'):
        layer(torch.randn(2, 12, 5))


@pytest.mark.parametrize('width', [1.0, 0.5])
@pytest.mark.parametrize('track_stats', [True, False])
@pytest.mark.parametrize('norm, shape', [NORMS[0], NORMS[2], NORMS[3]])
def test_one_value_per_channel_takes_the_running_statistics(
    norm, shape, width, track_stats
):
    """PyTorch refuses such a batch; the step is right with those."""
    layer = slim(make(norm, 16), width, track_stats).train()
    layer.num_batches_tracked += 1
    channels = int(16 * width)
    narrow = cut(layer, norm, channels).eval()
    before = layer.running_mean.clone()
    x = torch.randn(1, channels, *[1] * (len(shape) - 2))
    with pytest.warns(UserWarning, match='single value per channel'):
        found = layer(x)
    assert_close(found, narrow(x))
    assert torch.equal(layer.running_mean, before)
    layer.num_batches_tracked.zero_()  # and so the statistics are none
    with pytest.raises(UsageError, match='train on larger batches'):
        layer(x)


def test_statistics_of_another_width_are_refused():
    layer = slim(make(nn.BatchNorm2d, 16), 0.5).eval()
    layer.subnet_stats = torch.zeros(4), torch.ones(4)
    with pytest.raises(UsageError, match='8 channels with statistics of 4'):
        layer(torch.randn(2, 8, 3, 3))
