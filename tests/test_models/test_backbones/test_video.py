"""Sliced 3D networks equal narrow ones, built from plain PyTorch."""

import copy
import pickle

import pytest
import torch
from mmengine.registry import MODELS

from mutualnet_mm.slimmable import active_width

pytest.importorskip('mmaction')

WIDTHS = (0.25, 0.63, 0.87)
I3D_INFLATE = ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0))
TINY_INFLATE = ((1, 0), 1, 0, 1)

# Stock class, its settings, arguments of the plain network, (frames, pixels).
CASES = {
    'slow': (
        'ResNet3dSlowOnly',
        dict(depth=50, base_channels=16, stage_blocks=(2, 1, 2, 1)),
        dict(blocks=(2, 1, 2, 1)),
        (3, 23),
    ),
    'slow-18': (
        'ResNet3dSlowOnly',
        dict(depth=18, base_channels=24),
        dict(base=24, blocks=(2, 2, 2, 2), bottleneck=False),
        (3, 23),
    ),
    # As mmaction2's configs have it: inflated every second block.
    'i3d': (
        'ResNet3d',
        dict(
            depth=50,
            base_channels=16,
            conv1_kernel=(5, 7, 7),
            conv1_stride_t=2,
            pool1_stride_t=2,
            inflate=I3D_INFLATE,
        ),
        dict(
            blocks=(3, 4, 6, 3),
            stem=(5, 7, 7),
            time_stride=2,
            inflate=I3D_INFLATE,
            pool2=True,
        ),
        (9, 37),
    ),
    'i3d-3x3x3': (
        'ResNet3d',
        dict(
            depth=50,
            base_channels=16,
            stage_blocks=(2, 1, 1, 1),
            inflate=TINY_INFLATE,
            inflate_style='3x3x3',
            with_pool2=False,
        ),
        dict(stem=(3, 7, 7), inflate=TINY_INFLATE, inner_inflated=True),
        (3, 23),
    ),
    'x3d': ('X3D', dict(gamma_w=1, gamma_b=2.25), dict(), (3, 37)),
}


@pytest.fixture
def build(enter_scope, plain):
    """Return a network, ours or the stock one, with random statistics."""
    enter_scope('mmaction')

    def make(case, slimmable=True, **settings):
        name, kwargs, _, _ = CASES[case]
        prefix = 'mutualnet_mm.Slimmable' if slimmable else ''
        cfg = dict(kwargs, type=f'{prefix}{name}', **settings)
        net = plain.randomise(MODELS.build(copy.deepcopy(cfg)))
        net.eval()  # not chained: stock backbones' ``train`` returns nothing
        return net

    return make


@pytest.fixture
def narrow_copy(plain):
    def make(case, width, full):
        name, _, kwargs, _ = CASES[case]
        plainly = plain.x3d if name == 'X3D' else plain.resnet3d
        net = plainly(lambda c: plain.rounded(c * width), **kwargs)
        return plain.fill(net.double(), full.state_dict())

    return make


def clips(case, number=2):
    frames, size = CASES[case][-1]
    return torch.randn(number, 3, frames, size, size)


@pytest.mark.sweep(5)
@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('case', CASES)
def test_sliced_equals_narrow(build, narrow_copy, case, width):
    full = build(case).double()
    narrow = narrow_copy(case, width, full)
    x = clips(case).double()
    for training in (False, True):
        full.train(training), narrow.train(training)
        with torch.no_grad(), active_width(full, width):
            output = full(x)
        expected = narrow(x)[-1]
        assert output.shape[1] < 0.9 * full.feat_dim
        assert expected.std() > 1e-3  # else there is nothing to compare
        torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-11)
    # In training the channels that ran have moved their statistics.
    seen, moved = full.state_dict(), narrow.state_dict()
    for name, value in moved.items():
        found = seen[name][tuple(slice(n) for n in value.shape)]
        torch.testing.assert_close(found, value, msg=name)


@pytest.mark.parametrize('width', WIDTHS)
def test_every_stage(build, narrow_copy, width):
    full = build('slow', out_indices=(0, 1, 2, 3)).double()
    narrow = narrow_copy('slow', width, full).eval()
    x = clips('slow').double()
    with torch.no_grad(), active_width(full, width):
        outputs = full(x)
    for ours, theirs in zip(outputs, narrow(x)[2:]):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert len(outputs) == 4


@pytest.mark.parametrize('case', CASES)
def test_full_width_is_the_stock_network(build, plain, case):
    """In both modes, and strict loading both ways."""
    net, stock = build(case), build(case, slimmable=False)
    assert isinstance(net, type(stock))
    assert list(net.state_dict()) == list(stock.state_dict())
    stock.load_state_dict(net.state_dict(), strict=True)
    x = clips(case)
    with torch.no_grad():
        assert torch.equal(net(x), stock(x))
        plain.randomise(stock)
        assert not torch.equal(net(x), stock(x))
        net.load_state_dict(stock.state_dict(), strict=True)
        net.train(), stock.train()
        for _ in range(2):  # the second time from statistics that moved
            assert torch.equal(net(x), stock(x))
    for name, value in net.state_dict().items():
        assert torch.equal(value, stock.state_dict()[name]), name


@pytest.mark.parametrize('case', ['slow', 'i3d-3x3x3', 'x3d'])
def test_copies(build, case):
    """Copied and pickled, and then switched apart from the original."""
    net, x = build(case), clips(case, 1)
    with torch.no_grad():
        with active_width(net, 0.63):
            narrow = net(x)
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(other(x), net(x))
            with active_width(other, 0.63):
                assert torch.equal(other(x), narrow)
                assert net(x).shape[1] > narrow.shape[1]


def image_weights(net):
    """Weights of a 2D ResNet with the shapes and names of image models."""
    weights = {'fc.weight': torch.randn(10, 8), 'fc.bias': torch.randn(10)}
    for name, value in net.state_dict().items():
        *block, layer, kind, last = name.split('.')
        if layer == 'downsample':
            parts = [layer, '0' if kind == 'conv' else '1', last]
        else:
            parts = [layer.replace('conv', kind), last]
        shape = value.shape[:2] + value.shape[3:]
        new = torch.rand(shape) + 0.5  # also as variances
        weights['.'.join(block + parts)] = new.to(value.dtype)
    return weights


@pytest.mark.parametrize('case', ['slow', 'slow-18', 'i3d', 'i3d-3x3x3'])
def test_image_weights_are_inflated(build, tmp_path, case):
    """Spread evenly over the frames of a kernel, as the stock class does."""
    weights = image_weights(build(case, slimmable=False))
    path = str(tmp_path / 'image.pth')
    torch.save(dict(state_dict=weights), path)
    nets = [build(case, ours, pretrained=path) for ours in (True, False)]
    for net in nets:
        net.init_weights()
    found, expected = (net.state_dict() for net in nets)
    kernels = set()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
        if value.dim() == 5:
            image = name.replace('downsample.conv', 'downsample.0')
            image = weights[image.replace('.conv.', '.')]
            kernels.add(value.shape[2])
            for t in range(value.shape[2]):
                assert torch.equal(value[:, :, t], image / value.shape[2])
    assert {1, 3} <= kernels
    assert torch.equal(
        found['layer1.0.conv2.bn.running_var'],
        weights['layer1.0.bn2.running_var'],
    )
    x = clips(case, 1)
    nets[1].load_state_dict(found)
    with torch.no_grad():
        assert torch.equal(nets[0](x), nets[1](x))
