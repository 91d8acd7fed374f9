import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm.slimmable import active_width
from mutualnet_mm.slimmable.meta import weights_on_meta
from mutualnet_mm.slimmable.verify import already_verified

STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
CHANNELS = (64, 128, 256, 512, 512)


def rounded(value):
    """The published rule: to a multiple of 8, not below 90 %."""
    result = max(8, int(value + 4) // 8 * 8)
    return result + 8 if result < 0.9 * value else result


def narrow_stages(depth, width):
    inputs, stages = 3, []
    for number, channels in zip(STAGES[depth], CHANNELS):
        layers = []
        for _ in range(number):
            outputs = rounded(channels * width)
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            inputs = outputs
        stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, 2)))
    return nn.ModuleList(stages)


def layers_of(net):
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    return [layer for layer in net.modules() if isinstance(layer, kinds)]


@pytest.fixture
def build(enter_scope):
    def make(type='mutualnet_mm.SlimmableVGG', **kwargs):
        enter_scope('mmpretrain')
        settings = dict(depth=11, norm_cfg=dict(type='BN'))
        net = MODELS.build(dict(dict(type=type, **settings), **kwargs))
        for layer in layers_of(net):
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.uniform_(layer.bias, -0.5, 0.5)
                nn.init.uniform_(layer.running_mean, -0.5, 0.5)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
        net.eval()
        return net

    return make


@pytest.mark.sweep(4)
@pytest.mark.parametrize('width', [0.25, 0.6, 0.95])
@pytest.mark.parametrize('depth', [11, 16])
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_sliced_equals_narrow(build, depth, width, training):
    full = build(depth=depth, out_indices=(0, 1, 2, 3, 4)).double()
    narrow = narrow_stages(depth, width).double().eval()
    pairs = list(zip(layers_of(full), layers_of(narrow)))
    assert len(pairs) == 2 * sum(STAGES[depth])
    for wide, thin in pairs:
        for name, tensor in thin.state_dict().items():
            part = tuple(slice(size) for size in tensor.shape)
            tensor.copy_(wide.state_dict()[name][part])
    full.train(training), narrow.train(training)
    x = torch.randn(2, 3, 64, 48).double()
    with torch.no_grad(), active_width(full, width):
        outputs = full(x)
    for i, stage in enumerate(narrow):
        x = stage(x)
        torch.testing.assert_close(outputs[i], x, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize('depth', [11, 16])
def test_full_width_is_the_stock_network(build, depth):
    net, stock = build(depth=depth), build('VGG', depth=depth)
    stock.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 96)
    assert torch.equal(net(x)[-1], stock(x)[-1])
    again = build(depth=depth)
    again.load_state_dict(stock.state_dict(), strict=True)
    assert torch.equal(again(x)[-1], stock(x)[-1])
    assert isinstance(net, type(stock))


@pytest.mark.parametrize('size', [(64, 64), (33, 71)])
def test_strides_of_a_pyramid(build, size):
    net = build(out_indices=(1, 2, 3, 4))
    with active_width(net, 0.5):
        maps = net(torch.randn(1, 3, *size))
    assert [m.shape[1] for m in maps] == [64, 128, 256, 256]
    for m, stride in zip(maps, (4, 8, 16, 32)):
        assert m.shape[2:] == (size[0] // stride, size[1] // stride)


@pytest.mark.parametrize('width', [0.5, 1.0])
def test_class_scores_keep_all_classes(build, width):
    """A classifier of 100 million weights: its shapes alone."""
    with already_verified(), weights_on_meta():
        net = build(num_classes=10).to('meta')
    x = torch.empty(1, 3, 224, 224, device='meta')
    with active_width(net, width):
        assert net(x)[-1].shape == (1, 10)
        hidden = net.classifier[0]
        assert hidden.narrowed(int(512 * width) * 49)['weight'].shape == (
            4096 * width,
            512 * width * 49,
        )


def test_without_batch_norm(build):
    net = build(norm_cfg=None)
    with active_width(net, 0.3):
        assert net(torch.randn(1, 3, 64, 64))[-1].shape[1] == 152
