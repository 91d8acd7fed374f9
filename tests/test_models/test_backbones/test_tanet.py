"""TANet against a stock one of half the channels, filled by hand."""

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm.slimmable import active_width, make_static

pytest.importorskip('mmaction')
from mmaction.models.common import TAM  # noqa: E402

SEGMENTS = 4
SETTINGS = dict(depth=50, num_segments=SEGMENTS, norm_eval=False)


def halved(tensor, axes=(0,)):
    for axis in axes:
        tensor = tensor.narrow(axis, 0, tensor.shape[axis] // 2)
    return tensor


def leading(tensor, like):
    return tensor[tuple(slice(0, size) for size in like.shape)]


def halve(network):
    """Keep the first half of all channels, and all that is over time."""
    for name, layer in network.named_modules():
        if isinstance(layer, TAM):
            layer.in_channels //= 2
        if '.G.' in name:
            continue
        axes = (0,)
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)) and name != 'conv1.conv':
            axes = (0, 1)
        for key, value in layer._parameters.items():
            if value is not None:
                setattr(layer, key, nn.Parameter(halved(value.data, axes)))
        for key, value in layer._buffers.items():
            if value.dim():
                setattr(layer, key, halved(value))


@pytest.fixture
def networks(enter_scope):
    """A slimmable TANet and a stock one of half its channels."""
    enter_scope('mmaction')
    settings = dict(type='mutualnet_mm.Slimmable', wraps='mmaction.TANet')
    full = MODELS.build(dict(settings, **SETTINGS))
    for name, tensor in full.state_dict().items():
        if tensor.dim() == 1:
            low = 0.5 if name.endswith(('weight', 'var')) else -0.5
            nn.init.uniform_(tensor, low, low + 1)
    narrow = MODELS.build(dict(type='mmaction.TANet', **SETTINGS))
    narrow.load_state_dict(full.state_dict())
    halve(narrow)
    return full.double(), narrow.double()


@pytest.fixture
def images():
    return torch.randn(2 * SEGMENTS, 3, 32, 32, dtype=torch.double)


@pytest.mark.sweep(1)
@pytest.mark.parametrize('training', [True, False])
def test_half_of_it_is_a_stock_network(networks, images, training):
    full, narrow = networks
    full.train(training)
    narrow.train(training)
    full.slim_state.running_stats = True
    with active_width(full, 0.5):
        ours = full(images)
        ours.sum().backward()
    stock = narrow(images)
    stock.sum().backward()
    torch.testing.assert_close(ours, stock, rtol=1e-9, atol=1e-9)
    gradients = dict(full.named_parameters())
    for name, parameter in narrow.named_parameters():
        found = gradients[name].grad
        torch.testing.assert_close(
            leading(found, parameter), parameter.grad, rtol=1e-7, atol=1e-9
        )
        assert found.count_nonzero() <= parameter.numel()


def test_the_static_form(networks, images):
    full, narrow = networks
    full.eval()
    narrow.eval()
    full.slim_state.running_stats = True
    with active_width(full, 0.5):
        make_static(full, images)
    torch.testing.assert_close(
        full(images), narrow(images), rtol=1e-9, atol=1e-9
    )
    assert full.layer1[0].tam.in_channels == 32
