"""Multiply-accumulates of the paper's classifiers, from their layer tables.

The arithmetic here is by hand: convolutions, the global average pooling and
the classifier count, as in the published code. ResNet-50's are in
test_macs.py.
"""

import pytest
from mmengine.registry import MODELS

from mutualnet_mm.apis import count_macs

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
        mutual = dict(width=(0.25, 1.0), resolution=RESOLUTIONS)
        backbone = dict(type=f'mutualnet_mm.SlimmableMobileNet{version}')
        if wide:
            mutual = dict(width=(1.0, 2.0), resolution=(320, 288, 256))
            backbone.update(widen_factor=2.0, max_width=2.0)
        models[version, wide] = MODELS.build(
            dict(
                type='mutualnet_mm.MutualLearning',
                wraps='ImageClassifier',
                mutual=mutual,
                backbone=backbone,
                neck=dict(type='GlobalAveragePooling'),
                head=dict(
                    type='LinearClsHead',
                    num_classes=1000,
                    in_channels=features,
                ),
            )
        )
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
