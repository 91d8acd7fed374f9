"""Adaptive fusion equals a narrow Slow branch beside a whole Fast one.

The reference is assembled from plain PyTorch: the Slow branch is as narrow as
the width says, the Fast branch is the stock one, and the clip and what goes
over between the branches are brought to size frame by frame.
"""

import copy
import pickle

import pytest
import torch
from mmengine.registry import MODELS
from passes import on_running_statistics
from torch_versions import skip_without_autocast

from mutualnet_mm import ConfigError

pytest.importorskip('mmaction')

FULL = 32  # pixels
# Width, pixels, slow frames (of 4): all reduced, and each one alone.
SUBNETS = [
    (0.63, 23, 3),
    (0.25, 20, 2),
    (0.63, 32, 4),
    (1.0, 23, 4),
    (1.0, 32, 3),
    (0.87, 32, 1),
]
# Settings of `video_backbone`; then the Slow branch's channels, whether it
# has bottlenecks, its lateral channels and the clip's frames.
CASES = {
    'bottleneck': (dict(), 16, True, 16),
    'basic': (dict(depth=18), 32, False, 16),
    '4x16': (dict(stride=8, speed=8), 16, True, 32),
    'fast-stride-2': (dict(stride=8, speed=4), 16, True, 32),
}


def lateral_channels(base, bottleneck):
    """Of the Fast branch, and of what it hands over, at each fusion."""
    fast = [base // 8] + [
        base * (4 if bottleneck else 1) * f // 8 for f in (1, 2, 4)
    ]
    return [(c, 2 * c) for c in fast]


@pytest.fixture
def build(video_backbone, plain):
    """Return a network, ours or the stock one, with random statistics."""

    def make(case, slimmable=True, **settings):
        kwargs = dict(CASES[case][0], **settings)
        net = MODELS.build(video_backbone('slowfast', slimmable, **kwargs))
        return plain.randomise(net).eval()

    return make


@pytest.fixture
def assemble(plain):
    """Return the reference with the weights of ``full``."""

    def make(case, full, width, size, frames):
        settings, base, bottleneck, _ = CASES[case]
        stride = settings.get('stride', 4)
        speed = settings.get('speed', 4)
        laterals = lateral_channels(base, bottleneck)
        slow = plain.resnet3d(
            (lambda c: c)
            if width == 1
            else lambda c: plain.rounded(c * width),
            base,
            bottleneck=bottleneck,
            tails=[tail for _, tail in laterals],
        )
        stock = copy.deepcopy(full.fast_path)
        net = plain.TwoBranches(
            slow,
            stock,
            [(*lateral, speed) for lateral in laterals],
            size / FULL,
            frames,
            (stride, stride // speed),
        )
        tails = {
            f'slow_path.layer{i + 1}.0.{conv}.conv.weight': laterals[i][1]
            for i in range(4)
            for conv in ('conv1', 'downsample')
        }
        return plain.fill_fused(net.double(), full.state_dict(), tails).eval()

    return make


def clips(case, number=2, width=FULL):
    return torch.randn(number, 3, CASES[case][-1], FULL, width)


def active(net, subnet):
    width, size, frames = subnet
    return net.slim_state.activate(width, size / FULL, frames)


@pytest.mark.sweep(2)
@pytest.mark.parametrize('case', CASES)
def test_equals_an_assembled_network(build, assemble, case):
    stock = build(case, slimmable=False).double()
    net = build(case).double()
    net.load_state_dict(stock.state_dict(), strict=True)
    # TestViews are not always square.
    x = clips(case, width=40 if case == 'bottleneck' else FULL).double()
    for subnet in SUBNETS:
        reference = assemble(case, stock, *subnet)
        for training in (False, True):
            net.train(training), reference.train(training)
            with torch.no_grad(), active(net, subnet):
                outputs = net(x)
                if training:  # their running statistics have moved
                    net.load_state_dict(stock.state_dict())
                expected = reference(x)
            for ours, theirs in zip(outputs, expected):
                assert theirs.std() > 1e-3  # else nothing is compared
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
            assert outputs[0].shape[2] == subnet[2]


@pytest.mark.parametrize('case', CASES)
def test_full_is_the_stock_network(build, plain, case):
    net, stock = build(case), build(case, slimmable=False)
    assert isinstance(net, type(stock))
    assert net.state_dict().keys() == stock.state_dict().keys()
    stock.load_state_dict(net.state_dict(), strict=True)
    x = clips(case)

    def assert_equal():
        with torch.no_grad():
            expected = stock(x)
            with active(net, (1.0, FULL, 4)):
                named = net(x)
            for outputs in (net(x), named):
                assert all(map(torch.equal, outputs, expected))

    assert_equal()
    plain.randomise(stock)
    net.load_state_dict(stock.state_dict(), strict=True)
    assert_equal()
    net.train(), stock.train()
    with torch.no_grad():
        assert all(map(torch.equal, net(x), stock(x)))
    for name, value in net.state_dict().items():
        assert torch.equal(value, stock.state_dict()[name]), name


@pytest.mark.parametrize('case', CASES)
def test_adaptive_path_with_nothing_reduced(build, monkeypatch, case):
    """It computes what the stock forward does, which is not called."""
    net, stock = build(case), build(case, slimmable=False)
    stock.load_state_dict(net.state_dict())
    x = clips(case)
    with torch.no_grad():
        expected = stock(x)

    def refuse(self, x):
        raise AssertionError

    monkeypatch.setattr(type(stock), 'forward', refuse)
    with torch.no_grad(), active(net, (1.0, FULL * (1 + 1e-12), 4)):
        outputs = net(x)
    assert all(map(torch.equal, outputs, expected))


def side_behind(size, stage):
    """Of the map that enters ``stage``: every halving rounds up."""
    for _ in range(2 if stage == 0 else stage + 1):
        size = (size + 1) // 2
    return size


@pytest.mark.parametrize('case', ['bottleneck', 'basic', '4x16'])
def test_fused_shapes(build, plain, case):
    """``{t, r, gw C + 2bC}`` enters every stage of the Slow branch."""
    _, base, bottleneck, _ = CASES[case]
    net, shapes = build(case), []
    tails = [tail for _, tail in lateral_channels(base, bottleneck)]
    assert tails == net.slow_path.lateral_inplanes
    for i in range(1, 5):
        net.slow_path.get_submodule(f'layer{i}').register_forward_pre_hook(
            lambda layer, args: shapes.append(tuple(args[0].shape))
        )
    ratio = 4 if bottleneck else 1
    for width, size, frames in [(1.0, FULL, 4), *SUBNETS]:
        with torch.no_grad(), active(net, (width, size, frames)):
            net(clips(case, 1))
        slow = [ratio * base * factor for factor in (1, 1, 2, 4)]
        if width < 1:
            slow = [plain.rounded(channels * width) for channels in slow]
        slow[0] //= ratio  # the stem
        expected = []
        for i, (channels, tail) in enumerate(zip(slow, tails)):
            side = side_behind(size, i)
            expected.append((1, channels + tail, frames, side, side))
        assert shapes == expected
        shapes.clear()


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('case', ['bottleneck', 'basic'])
def test_the_fast_branch_is_untouched(build, case, training):
    net = build(case).train(training)
    seen = {}
    watched = ['conv1', *(f'layer{i}' for i in range(1, 5))]
    for name in watched:
        net.fast_path.get_submodule(name).register_forward_hook(
            lambda layer, args, out, name=name: seen.update({name: out})
        )
    laterals = [n for n, _ in net.slow_path.named_children() if 'later' in n]
    for name in laterals:
        net.slow_path.get_submodule(name).register_forward_hook(
            lambda layer, args, out, name=name: seen.update({name: out})
        )
    x = clips(case)
    with torch.no_grad():
        net(x)
        full, _ = dict(seen), seen.clear()
        for subnet in SUBNETS:
            with active(net, subnet):
                net(x)
            assert seen.keys() == full.keys() == {*watched, *laterals}
            for name, value in seen.items():
                assert torch.equal(value, full[name]), (subnet, name)
            seen.clear()
    assert len(laterals) == 4


def test_head_takes_fast_before_slow(build_recognizer, assemble, clip_batch):
    """Fixed columns first, then those of the Slow branch's channels."""
    model = build_recognizer('slowfast').double().eval()
    inputs, _ = clip_batch(2, frames=16)
    inputs = inputs.double()
    weight, bias = model.cls_head.fc_cls.weight, model.cls_head.fc_cls.bias
    for width, size, frames in [(0.63, 25, 3), (1.0, 21, 2), (0.63, 32, 4)]:
        narrow = assemble('bottleneck', model.backbone, width, size, frames)
        slow, fast = (x.mean((2, 3, 4)) for x in narrow(inputs[:, 0]))
        assert fast.shape[1] == 64
        expected = fast @ weight[:, :64].T + bias
        expected += slow @ weight[:, 64 : 64 + slow.shape[1]].T
        with torch.no_grad(), on_running_statistics(
            model, f'{width}x-{size}-{frames}'
        ):
            logits = model(inputs, mode='tensor', stage='head')
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    'copied',
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))],
    ids=['deepcopy', 'pickle'],
)
def test_copies(build, build_recognizer, clip_batch, copied):
    """Switched apart from the original, backbones and whole models."""
    net, x, subnet = build('bottleneck'), clips('bottleneck', 1), SUBNETS[0]
    other = copied(net)
    with torch.no_grad():
        full = net(x)
        with active(net, subnet):
            narrow = net(x)
            assert all(map(torch.equal, other(x), full))
        with active(other, subnet):
            assert all(map(torch.equal, other(x), narrow))
            assert all(map(torch.equal, net(x), full))
    model = build_recognizer('slowfast').eval()
    inputs, _ = clip_batch(1, frames=16)
    other = copied(model)
    with torch.no_grad():
        full = model(inputs, mode='tensor', stage='head')
        with on_running_statistics(model, '0.63x-25-3'):
            narrow = model(inputs, mode='tensor', stage='head')
        with on_running_statistics(other, '0.63x-25-3'):
            found = other(inputs, mode='tensor', stage='head')
            again = model(inputs, mode='tensor', stage='head')
    assert torch.equal(found, narrow) and torch.equal(again, full)
    assert not torch.allclose(narrow, full)


def image_weights(slow_path):
    """Weights of a 2D ResNet, as wide as the Slow branch's own channels."""
    weights = {}
    for (name, value), tail in _fused(slow_path):
        name = name.replace('downsample.conv', 'downsample.0')
        name = name.replace('downsample.bn', 'downsample.1')
        for i in '123':
            name = name.replace(f'conv{i}.conv', f'conv{i}')
            name = name.replace(f'conv{i}.bn', f'bn{i}')
        if value.dim() == 5:
            value = value[:, : value.shape[1] - tail, 0]
        weights[name] = (torch.rand(value.shape) + 0.5).to(value.dtype)
    return weights


def _fused(slow_path):
    """What an image model has, and the channels that a fusion adds."""
    for name, value in slow_path.state_dict().items():
        stage, _, rest = name.partition('.')
        tail = 0
        if rest in ('0.conv1.conv.weight', '0.downsample.conv.weight'):
            tail = slow_path.lateral_inplanes[int(stage[-1]) - 1]
        if 'lateral' not in name:
            yield (name, value), tail


@pytest.mark.parametrize('case', ['bottleneck', 'basic'])
def test_image_weights_are_inflated(build, tmp_path, case):
    """Into the Slow branch; from the Fast one nothing counts at first."""
    path = str(tmp_path / 'image.pth')
    weights = image_weights(build(case, slimmable=False).slow_path)
    torch.save(weights, path)
    nets = []
    for slimmable in (True, False):
        torch.manual_seed(3)
        nets.append(build(case, slimmable, slow_pathway=dict(pretrained=path)))
        torch.manual_seed(4)
        nets[-1].init_weights()
    found, expected = (net.state_dict() for net in nets)
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
    for (name, value), tail in _fused(nets[0].slow_path):
        if tail:
            name = name.replace('downsample.conv', 'downsample.0')
            image = weights[name.replace('.conv.', '.')]
            assert value[:, -tail:].abs().max() == 0
            span = value.shape[2]
            for t in range(span):
                assert torch.equal(value[:, :-tail, t], image / span)


def test_more_frames_than_the_clip_has(build):
    net = build('bottleneck')
    with active(net, (0.63, 23, 5)), pytest.raises(
        ConfigError, match='5 frames are wanted of a clip of 4'
    ):
        net(clips('bottleneck', 1))


def test_gradients_reach_both_branches(build):
    net = build('bottleneck').train()
    with active(net, (0.63, 23, 3)):
        net(clips('bottleneck'))[0].square().sum().backward()
    for name, parameter in net.named_parameters():
        # The last stage of the Fast branch goes to the head alone.
        reached = not name.startswith('fast_path.layer4')
        assert (parameter.grad is not None) == reached, name


def test_a_coarse_slow_branch(build):
    """4x16 with the Fast branch at half of the frames that are fed."""
    net = build('bottleneck', stride=16, speed=8)
    clips = torch.randn(1, 3, 32, FULL, FULL)
    assert [x.shape[2] for x in net(clips)] == [2, 16]
    with torch.no_grad(), net.slim_state.activate(0.63, 0.75, 1):
        assert [x.shape[2] for x in net(clips)] == [1, 16]


@pytest.mark.parametrize('case', ['bottleneck', 'basic'])
def test_without_lateral_connections(build, case):
    net, stock = (
        build(case, slimmable, slow_pathway=dict(lateral=False))
        for slimmable in (True, False)
    )
    stock.load_state_dict(net.state_dict())
    clips = torch.randn(1, 3, 16, FULL, FULL)
    with torch.no_grad():
        for ours, theirs in zip(net(clips), stock(clips)):
            assert torch.equal(ours, theirs)
        with net.slim_state.activate(0.63, 0.75, 2):
            slow, fast = net(clips)
            assert torch.equal(fast, stock(clips)[1])
            assert slow.shape[1:3] == (0.625 * stock(clips)[0].shape[1], 2)


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
def test_half_precision(build, dtype):
    skip_without_autocast(dtype)
    net = build('bottleneck')
    clips = torch.randn(1, 3, 16, FULL, FULL)
    with torch.no_grad(), net.slim_state.activate(0.63, 0.75, 3):
        exact = net(clips)
        with torch.autocast('cpu', dtype):
            found = net(clips)
    for a, b in zip(found, exact):
        assert a.dtype == dtype
        assert (a - b).abs().max() < 0.05 * b.abs().max()
