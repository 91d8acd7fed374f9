"""Multiply-accumulates of the paper's classifiers, from their layer tables.

The arithmetic here is by hand: convolutions, the global average pooling and
the classifier count, as in the published code. ResNet-50's are in
test_macs.py. Slicing is proven for smaller networks of the same classes.
"""

import pytest
from mmengine.registry import MODELS

from mutualnet_mm.apis import count_macs
from mutualnet_mm.config import find_views
from mutualnet_mm.slimmable.verify import already_verified

RESOLUTIONS = (224, 192, 160, 128)


def rounded(value):
    """The published rule: to a multiple of 8, not below 90 %."""
    result = max(8, int(value + 4) // 8 * 8)
    return result + 8 if result < 0.9 * value else result


def mobilenet_v1(width, size):
    """Table 1 of Howard et al. (2017); sizes are multiples of 32."""
    # Output channels, layers of this kind, what they divide the side by.
    table = [(64, 1, 2), (128, 1, 4), (128, 1, 4), (256, 1, 8), (256, 1, 8)]
    table += [(512, 6, 16), (1024, 2, 32)]
    inputs = rounded(32 * width)
    macs = (size // 2) ** 2 * 27 * inputs
    for base, number, stride in table:
        outputs = rounded(base * width)
        for _ in range(number):
            macs += (size // stride) ** 2 * (9 * inputs + inputs * outputs)
            inputs = outputs
    return macs + inputs * (size // 32) ** 2 + inputs * 1000


def mobilenet_v2(width, size):
    """Table 2 of Sandler et al. (2018); sizes are multiples of 32."""
    # Output channels, what the side is divided by before and after.
    table = [(24, 2, 4), (24, 4, 4), (32, 4, 8), (32, 8, 8), (32, 8, 8)]
    table += [(64, 8, 16), *[(64, 16, 16)] * 3, *[(96, 16, 16)] * 3]
    table += [(160, 16, 32), *[(160, 32, 32)] * 2, (320, 32, 32)]
    first, inputs = rounded(32 * width), rounded(16 * width)
    macs = (size // 2) ** 2 * first * (27 + 9 + inputs)
    for base, before, after in table:
        hidden, outputs = 6 * inputs, rounded(base * width)
        macs += (size // before) ** 2 * inputs * hidden
        macs += (size // after) ** 2 * hidden * (9 + outputs)
        inputs = outputs
    last = 1280  # at every width
    return macs + last * ((size // 32) ** 2 * (inputs + 1) + 1000)


@pytest.fixture(scope='module')
def models():
    """Those built already, for the tests that follow."""
    return {}


@pytest.fixture
def build(enter_scope, models):
    """Return a classifier of 1000 classes, `wide` for widths from 1 to 2."""
    enter_scope('mmpretrain')

    def make(version, features, wide=False):
        if (version, wide) in models:
            return models[version, wide]
        mutual = dict(width_range=(0.25, 1.0), resolution=RESOLUTIONS)
        backbone = dict(type=f'mutualnet_mm.SlimmableMobileNet{version}')
        if wide:
            mutual = dict(width_range=(1.0, 2.0), resolution=(320, 288, 256))
            backbone.update(widen_factor=2.0, max_width=2.0)
        config = dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=mutual,
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=1000, in_channels=features
            ),
        )
        with already_verified():
            models[version, wide] = MODELS.build(config)
        return models[version, wide]

    return make


@pytest.mark.parametrize(
    'subnet, millions',
    [('1.0x-224', 568.8), ('0.7x-160', 146.9), ('0.25x-128', 13.57)],
)
def test_mobilenet_v1(build, subnet, millions):
    macs = count_macs(build('V1', 1024), subnet)
    width, size = subnet.split('x-')
    assert macs == mobilenet_v1(float(width), int(size))
    assert macs / 1e6 == pytest.approx(millions, rel=5e-4)


@pytest.mark.parametrize(
    'subnet, millions', [('1.0x-224', 300.8), ('0.7x-128', 57.6)]
)
def test_mobilenet_v2(build, subnet, millions):
    macs = count_macs(build('V2', 1280), subnet)
    width, size = subnet.split('x-')
    assert macs == mobilenet_v2(float(width), int(size))
    assert macs / 1e6 == pytest.approx(millions, rel=1e-3)


def test_full_networks_to_the_last_digit(build):
    """As other counters have them, with the pooling they leave out."""
    pooled = 1024 * 7 * 7
    assert count_macs(build('V1', 1024), '1.0x-224') == 568_740_352 + pooled
    pooled = 1280 * 7 * 7
    assert count_macs(build('V2', 1280), '1.0x-224') == 300_774_272 + pooled


@pytest.mark.parametrize('subnet', ['1.6x-288', '1.0x-320', '2.0x-256'])
def test_mobilenet_v1_scaled_up(build, subnet):
    """The paper's 2.3 B at width 1.6, of a network built twice as wide."""
    model = build('V1', 2048, wide=True)
    width, size = subnet.split('x-')
    macs = count_macs(model, subnet)
    assert macs == mobilenet_v1(float(width), int(size))
    if subnet == '1.6x-288':
        assert macs / 1e6 == pytest.approx(2353, abs=0.5)


@pytest.mark.parametrize('version, features', [('V1', 1024), ('V2', 1280)])
def test_every_width_and_resolution(build, version, features):
    model = build(version, features)
    expected = mobilenet_v1 if version == 'V1' else mobilenet_v2
    grid = model.space.grid(0.15)
    assert len(grid) == 24
    for subnet in grid:
        assert count_macs(model, subnet) == expected(
            subnet.width, subnet.resolution
        ), str(subnet)


def halve(side):
    """Of a layer of stride 2: an odd number is rounded up."""
    return (side + 1) // 2


def resnet3d(narrow, base, side, frames, spans, stem_span=1, tails=(0,) * 4):
    """ResNet-50 over frames, with ``tails`` more inputs of each stage.

    ``spans`` are the frames that the first kernels of the stages' blocks see;
    everything keeps the number of frames.
    """
    side, inputs = halve(side), narrow(4 * base) // 4
    macs = side**2 * 49 * stem_span * 3 * inputs
    side = halve(side)
    for i, number in enumerate((3, 4, 6, 3)):
        outer = narrow(4 * base * 2**i)
        inner = outer // 4
        for j in range(number):
            seen = inputs + (tails[i] if j == 0 else 0)
            macs += side**2 * spans[i] * seen * inner
            if i > 0 and j == 0:
                side = halve(side)
            macs += side**2 * (9 * inner * inner + inner * outer)
            if j == 0:
                macs += side**2 * seen * outer
            inputs = outer
    return macs * frames


def narrowed(width):
    return lambda c: c if width == 1 else rounded(c * width)


def slow(width, side, frames, tails=(0,) * 4):
    """Slow (Feichtenhofer et al., 2019): inflated in the last two stages."""
    return resnet3d(narrowed(width), 64, side, frames, (1, 1, 3, 3), 1, tails)


def fast_and_lateral(side):
    """Fast branch of SlowFast 4x16, and what it hands over to 4 frames."""
    macs = resnet3d(narrowed(1), 8, side, 32, (3, 3, 3, 3), 5)
    side = halve(halve(side))
    for i, channels in enumerate((8, 32, 64, 128)):
        if i > 1:
            side = halve(side)
        macs += 4 * side**2 * 5 * channels * 2 * channels
    return macs


def x3d_m(width, side, frames):
    """X3D-M (Feichtenhofer, 2020), and the pooling of its SE modules."""
    narrow, side = narrowed(width), halve(side)
    inputs = narrow(24)
    macs, pooling = frames * side**2 * (27 + 5) * inputs, 0
    for i, number in enumerate((3, 5, 11, 7)):
        inner, outputs = narrow(54 * 2**i), narrow(24 * 2**i)
        squeezed = narrow(rounded(54 * 2**i / 16))
        for j in range(number):
            macs += frames * side**2 * inputs * inner
            if j == 0:
                side = halve(side)
                macs += frames * side**2 * inputs * outputs
            macs += frames * side**2 * inner * (27 + outputs)
            if j % 2 == 0:
                macs += 2 * inner * squeezed
                pooling += frames * side**2 * inner
            inputs = outputs
    return macs + frames * side**2 * inputs * narrow(432), pooling


def head(kind, width, side, frames, full_side, full_frames):
    """Average pooling and 400 classes."""
    for _ in range(5):
        side, full_side = halve(side), halve(full_side)
    narrow = narrowed(width)
    if kind == 'x3d':
        channels = narrow(432)
        return channels * (frames * side**2 + 2048) + 2048 * 400
    macs = narrow(2048) * (frames * side**2 + 400)
    if kind == 'slowfast':
        macs += 256 * (full_frames * full_side**2 + 400)
    return macs


# Backbone, head and the trained sizes.
RECOGNIZERS = {
    'slow': (
        dict(type='SlimmableResNet3dSlowOnly', depth=50),
        dict(type='I3DHead', in_channels=2048),
        dict(resolution=(224, 178, 142), frames=(8, 5, 3)),
    ),
    'slowfast': (
        dict(type='SlimmableResNet3dSlowFast'),
        dict(type='SlowFastHead', in_channels=2304),
        dict(resolution=(224, 178, 142), frames=(4, 3, 2)),
    ),
    'x3d': (
        dict(type='SlimmableX3D', gamma_w=1, gamma_b=2.25, gamma_d=2.2),
        dict(type='X3DHead', in_channels=432),
        dict(resolution=(224, 192, 160, 142), frames=(16, 12, 9, 6)),
    ),
}


@pytest.fixture
def build_recognizer(enter_scope, models):
    """Return a recognizer of the paper, for 400 classes."""
    pytest.importorskip('mmaction')
    enter_scope('mmaction')

    def make(kind):
        if kind not in models:
            backbone, cls_head, space = RECOGNIZERS[kind]
            config = dict(
                type='mutualnet_mm.MutualLearning',
                wraps='Recognizer3D',
                mutual=dict(width_range=(0.63, 1.0), **space),
                backbone=dict(
                    backbone, type=f'mutualnet_mm.{backbone["type"]}'
                ),
                cls_head=dict(cls_head, num_classes=400),
            )
            with already_verified():
                models[kind] = MODELS.build(config)
        return models[kind]

    return make


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    'kind, side, giga',
    [
        ('slow', 224, 41.74),
        ('slow', 256, 54.52),
        ('slowfast', 224, 27.64),
        ('slowfast', 256, 36.10),
        ('x3d', 224, 4.73),
        ('x3d', 256, 6.18),
    ],
)
def test_recognizers_backbones(build_recognizer, kind, side, giga):
    """One view of all frames, without the pooling of SE modules and head."""
    model = build_recognizer(kind)
    full = model.space.full
    macs = count_macs(model, full, (side, side))
    frames = 32 if kind == 'slowfast' else full.frames
    macs -= head(kind, 1, side, full.frames, side, frames)
    if kind == 'x3d':
        macs -= x3d_m(1, side, full.frames)[1]
    assert macs / 1e9 == pytest.approx(giga, abs=0.005)


def test_stock_tsn(enter_scope):
    """Of 25 segments, as mmaction2 lists it, which counts batch norms too."""
    pytest.importorskip('mmaction')
    enter_scope('mmaction')
    from mmengine.hub import get_config

    cfg = get_config(
        'mmaction::recognition/tsn/'
        'tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py'
    )
    cfg.model.update(
        type='mutualnet_mm.MutualLearning',
        wraps='Recognizer2D',
        mutual=dict(resolution=(224, 160), frames=(3, 2)),
    )
    cfg.model.backbone.update(type='mutualnet_mm.Slimmable', wraps='ResNet')
    with already_verified():
        model = MODELS.build(cfg.model)
    views = find_views(cfg)
    assert (views.number, views.shape) == (10, (25, 224, 224))
    macs = count_macs(model, model.space.full, views.shape)
    # ResNet-50's convolutions and the pooling of each frame; a classifier.
    of_frame = 4_087_136_256 + 2048 * 49
    assert macs == 25 * of_frame + 2048 * 400
    assert macs / 1e9 == pytest.approx(102.7, rel=0.01)
    few = count_macs(model, '1.0x-224-2', views.shape)
    assert few == 17 * of_frame + 2048 * 400


@pytest.mark.sweep(1)
@pytest.mark.parametrize('kind', ['slow', 'slowfast', 'x3d'])
def test_recognizers_at_every_size(build_recognizer, kind):
    """To the last digit; the share of the Fast branch never changes."""
    model = build_recognizer(kind)
    full = model.space.full
    grid = model.space.grid(0.185)
    assert len({subnet.width for subnet in grid}) == 3
    shares = set()
    for number, subnet in enumerate(grid):
        if number % 5:  # a part of it: one in each row and column
            continue
        view = 224 if number % 2 else 256
        side = round(view * subnet.resolution / 224)
        shape = (subnet.width, side, subnet.frames)
        macs = count_macs(model, subnet, (view, view))
        macs -= head(kind, *shape, view, 32)
        if kind == 'x3d':
            assert macs == sum(x3d_m(*shape)), str(subnet)
        elif kind == 'slow':
            assert macs == slow(*shape), str(subnet)
        else:
            macs -= slow(*shape, tails=(16, 64, 128, 256))
            assert macs == fast_and_lateral(view), str(subnet)
            shares.add(macs)
    assert kind != 'slowfast' or len(shares) == 2  # one for each view
    assert count_macs(model, full) == count_macs(model, full, (224, 224))
