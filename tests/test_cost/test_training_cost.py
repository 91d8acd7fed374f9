import numpy as np
import pytest
from mmengine.registry import MODELS

from mutualnet_mm import Subnet, SubnetSampler, SubnetSpace
from mutualnet_mm.apis import count_macs
from mutualnet_mm.cost import closed_form_ratio, expected_macs
from mutualnet_mm.cost.macs_by_width import MacsByWidth
from mutualnet_mm.cost.training_cost import (
    teacher_macs,
    ways_of_sampling,
    width_pieces,
)

RESOLUTIONS = (224, 192, 160, 128)


@pytest.fixture
def mobilenet(enter_scope):
    enter_scope('mmpretrain')
    return MODELS.build(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=dict(width_range=(0.25, 1.0), resolution=RESOLUTIONS),
            backbone=dict(type='mutualnet_mm.SlimmableMobileNetV1'),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=1000, in_channels=1024
            ),
        )
    )


def rounded(value):
    """The published rule: to a multiple of 8, not below 90 %."""
    result = np.maximum(8, (value + 4) // 8 * 8)
    return np.where(result < 0.9 * value, result + 8, result)


def mobilenet_macs(width, resolution):
    """MobileNetV1's multiply-accumulates by hand, of many widths at once."""
    side = -(-resolution // 2)
    channels = rounded(32 * width)
    macs = side**2 * 27 * channels
    stages = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
    for base, number, stride in stages:
        for step in (stride, *[1] * (number - 1)):
            side = -(-side // step)
            outputs = rounded(base * width)
            macs = macs + side**2 * channels * (9 + outputs)
            channels = outputs
    return macs + channels * 1000 + pooling_macs(width, resolution)


def pooling_macs(width, resolution):
    return rounded(1024 * width) * (-(-resolution // 32)) ** 2


def step(macs, number=200_000):
    """Expected cost of a step, the mean over very many widths."""
    widths = 0.25 + 0.75 * (np.arange(number) + 0.5) / number
    return macs(1.0, 224) + np.mean(
        [macs(0.25, r) + 2 * macs(widths, r).mean() for r in RESOLUTIONS]
    )


def test_mobilenet_v1(mobilenet):
    """The figures of Table 3: 1.60 x in closed form, 1.63 x as it is."""
    full = count_macs(mobilenet, '1.0x-224')
    assert full == mobilenet_macs(1.0, 224)
    ratio = closed_form_ratio(mobilenet.sampler)
    assert ratio == pytest.approx(1.6027, abs=5e-5)
    assert 569e6 * ratio == pytest.approx(911.9e6, abs=0.05e6)

    (expected,) = expected_macs(mobilenet, [mobilenet.sampler])
    assert expected == pytest.approx(step(mobilenet_macs), rel=2e-6)
    # 925.7 M without the global pooling.
    without = expected - step(pooling_macs)
    assert without == pytest.approx(925.7e6, abs=0.05e6)
    assert expected / full == pytest.approx(1.63, abs=0.005)


SPACE = SubnetSpace((0.25, 1.0), RESOLUTIONS)
SLOW = SubnetSpace((0.63, 1.0), (224, 178, 142), (8, 5, 3))


WAYS = ('full + 2 random', 'full + smallest + 1 random', 'full + 1 random')


def test_video_by_equation_9():
    """The figures of Table 4: Slow 8x8 of 54.52 G at full size, and 41.74."""
    sampler = SubnetSampler(SLOW, include_min=False)
    ways = ways_of_sampling(sampler)
    for full, giga in (
        (54.52, ['87.81', '80.94', '71.16']),
        (41.74, ['67.23', '61.97', '54.48']),
    ):
        found = {
            name: f'{full * closed_form_ratio(way):.2f}'
            for name, way in ways.items()
        }
        assert found == dict(zip(WAYS, giga))


@pytest.mark.parametrize(
    'settings, names',
    [
        (dict(include_min=False), WAYS),
        (dict(num_random=1), [WAYS[1], WAYS[0], WAYS[2]]),
        ({}, ['full + smallest + 2 random', *WAYS]),
        (dict(num_random=0), ['full + smallest', *WAYS]),
        (
            dict(num_random=1, include_min=False, resolution_mode='shared'),
            ['full + 1 random of one size', *WAYS],
        ),
        (dict(single_subnet='0.63x-142-3'), ['0.63x-142-3 alone']),
    ],
    ids=str,
)
def test_ways_of_sampling_video(settings, names):
    """The config's own first, each once."""
    sampler = SubnetSampler(SLOW, **settings)
    ways = ways_of_sampling(sampler)
    assert list(ways) == list(names)
    assert next(iter(ways.values())) is sampler
    for name, way in list(ways.items())[1:]:
        drawn = list(way.sample(3))
        assert len(drawn) == (2 if name == WAYS[2] else 3)
        assert ('min' in drawn) == ('smallest' in name)
        assert not way.shared


@pytest.mark.parametrize(
    'space, name',
    [
        (SPACE, 'full + smallest + 2 random'),
        (
            SubnetSpace(widths=(0.25, 0.5, 1.0), resolution=RESOLUTIONS),
            'full + 2 fixed',
        ),
        (
            SubnetSpace(None, (64,), (8, 4), widths=(0.5, 0.7, 1.0)),
            'full + 2 fixed',
        ),
    ],
)
def test_what_has_one_way_alone(space, name):
    assert list(ways_of_sampling(SubnetSampler(space))) == [name]


def test_a_subnet_trained_alone():
    sampler = SubnetSampler(SLOW, single_subnet='0.63x-112-4')
    ratio = 0.63**2 * (112 / 224) ** 2 * 4 / 8
    assert closed_form_ratio(sampler) == pytest.approx(ratio)


@pytest.mark.parametrize(
    'sampler',
    [
        SubnetSampler(SPACE),
        SubnetSampler(SPACE, num_random=3, include_min=False),
        SubnetSampler(SPACE, resolution_mode='shared'),
        SubnetSampler(SPACE, num_random=3, stratified=True),
        SubnetSampler(SubnetSpace(None, RESOLUTIONS, widths=(0.25, 1.0))),
        SubnetSampler(SubnetSpace(None, RESOLUTIONS, widths=(0.5,))),
        SubnetSampler(SubnetSpace((1.0, 2.0), (224, 288)[::-1])),
        SubnetSampler(SLOW),
    ],
    ids=lambda sampler: f'{sampler.space.widths}-{sampler.shared}',
)
def test_closed_form_is_the_mean_over_real_draws(sampler):
    full = sampler.space.full

    def relative(subnet):
        frames = subnet.frames / full.frames if full.frames else 1
        width = subnet.width / full.width
        return frames * (width * subnet.resolution / full.resolution) ** 2

    costs = [
        sum(map(relative, sampler.sample(i).values())) for i in range(4000)
    ]
    error = 4 * np.std(costs) / len(costs) ** 0.5 + 1e-9
    assert closed_form_ratio(sampler) == pytest.approx(
        np.mean(costs), abs=error
    )


@pytest.mark.parametrize('start', [0.25, 0.9])
@pytest.mark.parametrize('mode', ['independent', 'shared'])
def test_a_later_start_of_the_subnets(mobilenet, start, mode):
    """The mean over the steps of a whole training, of both kinds."""
    plain, later = (
        SubnetSampler(SPACE, resolution_mode=mode, start=share)
        for share in (0.0, start)
    )
    ramps = [later.ramp(i, 1000) > 0 for i in range(1000)]
    assert np.mean(ramps) == pytest.approx(1 - start)
    alone = 1.0
    if mode == 'shared':
        alone = np.mean([(r / 224) ** 2 for r in RESOLUTIONS])
    expected = np.where(ramps, closed_form_ratio(plain), alone).mean()
    assert closed_form_ratio(later) == pytest.approx(expected)
    found = expected_macs(mobilenet, [plain, later])
    alone = np.mean(
        [
            count_macs(mobilenet, Subnet(1.0, r))
            for r in (RESOLUTIONS if mode == 'shared' else [224])
        ]
    )
    assert found[1] == pytest.approx(
        np.where(ramps, found[0], alone).mean(), rel=1e-9
    )
    (name,) = ways_of_sampling(later)
    end = f', from {start} of the training on'
    assert name == next(iter(ways_of_sampling(plain))) + end
    video = SubnetSampler(SLOW, include_min=False, start=start)
    assert list(ways_of_sampling(video)) == [way + end for way in WAYS]


@pytest.mark.parametrize(
    'settings',
    [
        dict(widths=(1.0, 0.5, 0.25)),
        dict(num_random=0),
        dict(num_random=0, include_min=False),
        dict(num_random=0, resolution_mode='shared'),
    ],
    ids=str,
)
def test_what_is_not_drawn_at_random_is_summed(build_classifier, settings):
    model = build_classifier(settings)
    widths = sorted(settings.get('widths', (0.25, 1.0)))
    if not settings.get('include_min', True):
        widths = widths[1:]

    def mean(width):
        sizes = model.space.resolutions
        return np.mean([count_macs(model, Subnet(width, r)) for r in sizes])

    full = widths.pop()
    expected = sum(map(mean, widths))
    if settings.get('resolution_mode') == 'shared':
        expected += mean(full)
    else:
        expected += count_macs(model, Subnet(full, 64))
    found = expected_macs(model, [model.sampler])
    assert found == pytest.approx([expected], rel=1e-12)


@pytest.mark.parametrize('start', [0.0, 0.25])
def test_a_teacher_that_only_predicts(build_classifier, start):
    """A forward pass of the full network, of which two thirds are missing."""
    plain, taught = (
        build_classifier(dict(num_random=0, teacher=teacher, start=start))
        for teacher in ('full', 'ema')
    )
    full = count_macs(plain, '1.0x-64')
    found = [expected_macs(m, [m.sampler])[0] for m in (plain, taught)]
    assert found[1] - found[0] == pytest.approx((1 - start) * full / 3)
    assert teacher_macs(plain) == 0
    assert teacher_macs(taught) == pytest.approx(full / 3)
    ratios = [
        closed_form_ratio(plain.sampler, lambda size, t=teacher: t)
        for teacher in (0, 1 / 3)
    ]
    assert ratios[1] - ratios[0] == pytest.approx((1 - start) / 3)


def test_an_averaged_teacher_of_the_size_of_the_step(build_classifier):
    """It sees what the full network sees: of random size here."""
    settings = dict(num_random=0, resolution_mode='shared')
    plain, taught = (
        build_classifier(dict(settings, teacher=teacher))
        for teacher in ('full', 'ema')
    )
    found = [expected_macs(m, [m.sampler])[0] for m in (plain, taught)]
    sizes = plain.space.resolutions
    assert len(sizes) > 1
    passes = [count_macs(plain, Subnet(1.0, size)) for size in sizes]
    assert found[1] - found[0] == pytest.approx(np.mean(passes) / 3)


@pytest.fixture
def build_recognizer(enter_scope):
    pytest.importorskip('mmaction')
    enter_scope('mmaction')

    def build(backbone, head='I3DHead', channels=32, **mutual):
        space = dict(
            width_range=(0.63, 1.0),
            resolution=(64, 48),
            frames=(4, 2),
            include_min=False,
        )
        space.update(mutual)
        return MODELS.build(
            dict(
                type='mutualnet_mm.MutualLearning',
                wraps='Recognizer3D',
                mutual=space,
                backbone=backbone,
                cls_head=dict(type=head, num_classes=10, in_channels=channels),
            )
        )

    return build


SMALL_SLOW = dict(
    type='mutualnet_mm.SlimmableResNet3dSlowOnly',
    depth=18,
    num_stages=2,
    stage_blocks=(1, 1),
    out_indices=(1,),
    spatial_strides=(1, 2),
    temporal_strides=(1, 1),
    dilations=(1, 1),
    inflate=(0, 1),
    base_channels=64,
)


def small_slow_macs(width, height, wide, frames):
    """Multiply-accumulates of it by hand, of many widths at once."""
    areas = []
    for _ in range(3):
        height, wide = -(-height // 2), -(-wide // 2)
        areas.append(height * wide * frames)
    a, b = rounded(64 * width), rounded(128 * width)
    return (
        areas[0] * 3 * 7 * 7 * a
        + areas[1] * 2 * 9 * a * a
        + areas[2] * (27 * a * b + 27 * b * b + a * b)
        + areas[2] * b
        + 10 * b
    )


@pytest.mark.parametrize('shape', [None, (80, 100)])
def test_ways_of_sampling_a_small_slow_network(build_recognizer, shape):
    model = build_recognizer(SMALL_SLOW, channels=128)
    # 48 pixels of 64: three quarters of each side.
    sides = [(64, 64), (48, 48)] if shape is None else [(80, 100), (60, 75)]
    sizes = [(*side, frames) for side in sides for frames in (4, 2)]
    full = small_slow_macs(1.0, *sizes[0])
    assert count_macs(model, '1.0x-64-4', shape) == full

    widths = 0.63 + 0.37 * (np.arange(200_000) + 0.5) / 200_000
    random = np.mean([small_slow_macs(widths, *size) for size in sizes])
    least = np.mean([small_slow_macs(0.63, *size) for size in sizes])
    expected = dict(
        zip(WAYS, [full + 2 * random, full + least + random, full + random])
    )
    ways = ways_of_sampling(model.sampler)
    found = dict(zip(ways, expected_macs(model, list(ways.values()), shape)))
    assert found == pytest.approx(expected, rel=2e-6)


def test_ways_of_sampling_share_what_is_counted(build_recognizer, monkeypatch):
    from mutualnet_mm.cost import training_cost

    made = []

    class Ones(MacsByWidth):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

        def _count(self, subnet):
            return 1

    monkeypatch.setattr(training_cost, 'MacsByWidth', Ones)
    model = build_recognizer(SMALL_SLOW, channels=128, include_min=True)
    samplers = list(ways_of_sampling(model.sampler).values())
    assert expected_macs(model, samplers) == pytest.approx([4, 3, 3, 2])
    assert len(made) == 1


@pytest.mark.sweep(1)
@pytest.mark.parametrize('rounding', ['paper', 'hardware'])
def test_pieces_hold_all_widths(classifier_config, rounding):
    """Every width costs what the piece that it falls into does."""
    config = classifier_config(
        dict(width_range=(0.3, 0.9), rounding=rounding), depth=50
    )
    config['head']['in_channels'] = 512
    model = MODELS.build(config)
    pieces = width_pieces(model)
    assert sum(share for _, share in pieces) == pytest.approx(1)
    ends = np.cumsum([share for _, share in pieces])
    rng = np.random.default_rng(0)
    for place in rng.uniform(size=15):
        middle, _ = pieces[np.searchsorted(ends, place)]
        macs = [
            count_macs(model, Subnet(float(width), 64))
            for width in (0.3 + 0.6 * place, middle)
        ]
        assert macs[0] == macs[1]


def test_progress_is_shown(build_classifier):
    model = build_classifier(dict(resolution=(64,)))
    seen = []

    def track(pieces):
        for piece in pieces:
            seen.append(piece)
            yield piece

    expected_macs(model, [model.sampler], track=track)
    assert seen == width_pieces(model)
