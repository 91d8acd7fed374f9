import numpy as np
import pytest
from mmengine.registry import MODELS

from mutualnet_mm import Subnet, SubnetSampler, SubnetSpace
from mutualnet_mm.apis import closed_form_ratio, count_macs, expected_macs
from mutualnet_mm.apis.training_cost import width_pieces

RESOLUTIONS = (224, 192, 160, 128)


@pytest.fixture
def mobilenet(enter_scope):
    enter_scope('mmpretrain')
    return MODELS.build(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=dict(width=(0.25, 1.0), resolution=RESOLUTIONS),
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

    expected = expected_macs(mobilenet)
    assert expected == pytest.approx(step(mobilenet_macs), rel=2e-6)
    # 925.7 M without the global pooling.
    without = expected - step(pooling_macs)
    assert without == pytest.approx(925.7e6, abs=0.05e6)
    assert expected / full == pytest.approx(1.63, abs=0.005)


SPACE = SubnetSpace((0.25, 1.0), RESOLUTIONS)
SLOW = SubnetSpace((0.63, 1.0), (224, 178, 142), (8, 5, 3))


@pytest.mark.parametrize(
    'space, settings, giga',
    [
        (SLOW, dict(include_min=False), 87.8),
        (SLOW, dict(num_random=1), 80.9),
        (SLOW, dict(num_random=1, include_min=False), 71.16),
    ],
)
def test_video_by_equation_9(space, settings, giga):
    """Slow 8x8: 54.52 G at full size."""
    ratio = closed_form_ratio(SubnetSampler(space, **settings))
    assert 54.52 * ratio == pytest.approx(giga, abs=0.05)


@pytest.mark.parametrize(
    'sampler',
    [
        SubnetSampler(SPACE),
        SubnetSampler(SPACE, num_random=3, include_min=False),
        SubnetSampler(SPACE, resolution_mode='shared'),
        SubnetSampler(SubnetSpace((0.25, 0.75, 1.0), RESOLUTIONS)),
        SubnetSampler(SubnetSpace((0.5,), RESOLUTIONS)),
        SubnetSampler(SubnetSpace((0.6, 0.6), (64, 32)), 1),
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


@pytest.mark.parametrize(
    'settings',
    [
        dict(width=(1.0, 0.5, 0.25)),
        dict(num_random=0),
        dict(num_random=0, include_min=False),
        dict(num_random=0, resolution_mode='shared'),
        dict(width=(0.5, 0.5), num_random=1),
    ],
    ids=str,
)
def test_what_is_not_drawn_at_random_is_summed(build_classifier, settings):
    model = build_classifier(settings)
    widths = sorted(settings.get('width', (0.25, 1.0)))
    if not settings.get('include_min', True):
        widths = widths[1:]
    if settings.get('width') == (0.5, 0.5):
        widths = [0.5, 0.5, 0.5]

    def mean(width):
        sizes = model.space.resolutions
        return np.mean([count_macs(model, Subnet(width, r)) for r in sizes])

    full = widths.pop()
    expected = sum(map(mean, widths))
    if settings.get('resolution_mode') == 'shared':
        expected += mean(full)
    else:
        expected += count_macs(model, Subnet(full, 64))
    assert expected_macs(model) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('rounding', ['paper', 'hardware'])
def test_pieces_hold_all_widths(classifier_config, rounding):
    """Every width costs what the piece that it falls into does."""
    config = classifier_config(
        dict(width=(0.3, 0.9), rounding=rounding), depth=50
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

    expected_macs(model, track)
    assert seen == width_pieces(model)
