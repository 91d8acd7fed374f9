import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mutualnet_mm import (
    ConfigError,
    Subnet,
    SubnetSampler,
    SubnetSpace,
    UsageError,
)

SPACE = SubnetSpace((0.25, 1.0), (224, 192, 160, 128))
VIDEO = SubnetSpace((0.63, 1.0), (224, 178, 142), (8, 5, 3))


def draw(count=2000, space=SPACE, **options):
    sampler = SubnetSampler(space, **options)
    return [sampler.sample(i) for i in range(count)]


@pytest.mark.parametrize('space', [SPACE, VIDEO])
@pytest.mark.parametrize('mode', ['independent', 'shared'])
def test_draw_is_a_pure_function(space, mode):
    options = dict(resolution_mode=mode, seed=3)
    first = draw(50, space, **options)
    backwards = SubnetSampler(space, **options)
    assert [backwards.sample(i) for i in range(49, -1, -1)] == first[::-1]
    assert draw(50, space, resolution_mode=mode, seed=4) != first
    assert len({str(drawn) for drawn in first}) == 50
    # Neighbouring seeds are not shifted copies of each other.
    shifted = SubnetSampler(space, resolution_mode=mode, seed=4)
    assert shifted.sample(2) != first[3]


@pytest.mark.subprocess
def test_draw_is_the_same_in_a_fresh_process():
    code = (
        'from mutualnet_mm import SubnetSampler, SubnetSpace\n'
        f'sampler = SubnetSampler({VIDEO!r}, seed=7)\n'
        'for i in (5, 0, 123456): print(sampler.sample(i))'
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    sampler = SubnetSampler(VIDEO, seed=7)
    expected = [str(sampler.sample(i)) for i in (5, 0, 123456)]
    assert result.stdout.splitlines()[-3:] == expected


@pytest.mark.parametrize('num_random', [0, 1, 2, 4])
@pytest.mark.parametrize('include_min', [True, False])
def test_sandwich_rule(num_random, include_min):
    tags = ['full'] + ['min'] * include_min
    tags += [f'rand{i + 1}' for i in range(num_random)]
    for drawn in draw(
        100, VIDEO, num_random=num_random, include_min=include_min
    ):
        assert list(drawn) == tags
        assert drawn['full'] == Subnet(1.0, 224, 8)
        assert not include_min or drawn['min'].width == 0.63
        for subnet in drawn.values():
            assert 0.63 <= subnet.width <= 1.0
            assert subnet.resolution in (224, 178, 142)
            assert subnet.frames in (8, 5, 3)


def test_list_of_widths_is_trained_in_every_step():
    space = SubnetSpace(widths=[0.5, 1.0, 0.25, 0.75], resolution=(224, 160))
    for drawn in draw(50, space):
        assert {tag: s.width for tag, s in drawn.items()} == dict(
            full=1.0, fixed1=0.75, fixed2=0.5, fixed3=0.25
        )
    alone = draw(20, SubnetSpace(widths=[0.7], resolution=(224, 160)))
    assert alone == [{'full': Subnet(0.7, 224)}] * 20


def test_shared_mode_gives_one_size_to_all():
    sizes = Counter()
    for drawn in draw(2000, VIDEO, resolution_mode='shared'):
        size = {(s.resolution, s.frames) for s in drawn.values()}
        assert len(size) == 1
        sizes.update(size)
        assert drawn['full'].width == 1.0
    assert len(sizes) == 9
    assert all(abs(n / 2000 - 1 / 9) < 0.03 for n in sizes.values())


@pytest.mark.parametrize('tag', ['min', 'rand1', 'rand2'])
def test_draws_are_uniform(tag):
    subnets = [drawn[tag] for drawn in draw(2000)]
    counts = Counter(subnet.resolution for subnet in subnets)
    assert set(counts) == {224, 192, 160, 128}
    assert all(abs(n / 2000 - 1 / 4) < 0.04 for n in counts.values())
    if tag != 'min':
        widths = np.array([subnet.width for subnet in subnets])
        assert abs(widths.mean() - 0.625) < 0.02
        shares = np.histogram(widths, 5, (0.25, 1.0))[0] / 2000
        assert np.all(abs(shares - 0.2) < 0.04)


def test_tags_are_drawn_independently():
    drawn = draw(2000)
    widths = [[d[tag].width for d in drawn] for tag in ('rand1', 'rand2')]
    sizes = [[d[r].resolution for d in drawn] for r in ('rand1', 'rand2')]
    assert abs(np.corrcoef(widths)[0, 1]) < 0.1
    assert abs(np.corrcoef(sizes)[0, 1]) < 0.1
    assert abs(np.corrcoef(widths[0], sizes[0])[0, 1]) < 0.1


@pytest.mark.parametrize('name', ['num_random', 'seed'])
@pytest.mark.parametrize('value', [-1, 1.5, '2', True, None])
def test_bad_numbers_are_named(name, value):
    with pytest.raises(ConfigError, match=rf'mutual\.{name}={value!r}'):
        SubnetSampler(SPACE, **{name: value})


@pytest.mark.parametrize('value', ['no', 0, None])
def test_include_min_is_yes_or_no(value):
    with pytest.raises(ConfigError, match=f'include_min={value!r}: use True'):
        SubnetSampler(SPACE, include_min=value)


def test_bad_resolution_mode_is_named():
    with pytest.raises(ConfigError, match="resolution_mode='mixed'"):
        SubnetSampler(SPACE, resolution_mode='mixed')


def test_a_subnet_trained_alone():
    sampler = SubnetSampler(VIDEO, single_subnet='0.63x-142-3')
    expected = {'full': Subnet(0.63, 142, 3)}
    assert all(sampler.sample(i) == expected for i in range(5))
    with pytest.raises(ConfigError, match='width 0.5 is outside'):
        SubnetSampler(VIDEO, single_subnet='0.5x-142-3')
    with pytest.raises(ConfigError, match='name its frames'):
        SubnetSampler(VIDEO, single_subnet='0.63x-142')


@pytest.mark.parametrize(
    'settings, tags',
    [
        (dict(num_random=2, include_min=False), ['full', 'rand1', 'rand2']),
        (dict(num_random=1), ['full', 'min', 'rand1']),
    ],
)
def test_video_subnets_have_sizes_of_their_own(settings, tags):
    sampler = SubnetSampler(VIDEO, **settings)
    steps = [sampler.sample(i) for i in range(500)]
    assert all(list(step) == tags for step in steps)
    assert {step['full'] for step in steps} == {Subnet(1.0, 224, 8)}
    for tag in tags[1:]:
        sizes = Counter((s[tag].resolution, s[tag].frames) for s in steps)
        assert set(sizes) == set(product((224, 178, 142), (8, 5, 3)))
        # Nine equal shares, three standard deviations.
        assert all(abs(n - 500 / 9) < 22 for n in sizes.values())
        widths = {s[tag].width for s in steps}
        assert min(widths) >= 0.63
        assert len(widths) == (1 if tag == 'min' else 500)


@pytest.mark.parametrize('number', [2, 5])
def test_stratified_widths(number):
    """One of each part of the range, uniformly, and the sizes of all."""
    drawn = draw(2000, num_random=number, stratified=True)
    widths = np.array(
        [[d[f'rand{i + 1}'].width for i in range(number)] for d in drawn]
    )
    parts = (widths - 0.25) / 0.75 * number - np.arange(number)
    assert parts.min() >= 0 and parts.max() < 1
    assert abs(parts.mean(0) - 0.5).max() < 0.03
    assert abs(parts.var(0) - 1 / 12).max() < 0.01
    sizes = Counter(d['rand1'].resolution for d in drawn)
    assert all(abs(n / 2000 - 1 / 4) < 0.04 for n in sizes.values())
    assert drawn == draw(2000, num_random=number, stratified=True)


def test_ramp_of_the_subnets():
    """Linear over the first tenth of the steps that remain."""
    sampler = SubnetSampler(SPACE, start=0.5)
    ramp = [sampler.ramp(i, 40) for i in range(40)]
    assert ramp == [0] * 20 + [0.5, 1] + [1] * 18
    ramp = [sampler.ramp(i, 200) for i in range(200)]
    assert ramp[:100] == [0] * 100
    assert ramp[100:110] == pytest.approx(np.arange(1, 11) / 10)
    assert ramp[110:] == [1] * 90
    # However short the training, its last step is of all.
    for start, length in ((0.9, 3), (0.999, 100), (0.5, 1)):
        late = SubnetSampler(SPACE, start=start)
        ramp = [late.ramp(i, length) for i in range(length)]
        assert ramp == [0] * (length - 1) + [1]
    assert sampler.ramp(99, 40) == 1
    assert SubnetSampler(SPACE).ramp(0, None) == 1
    # The draws are those of any other training.
    assert sampler.sample(3) == SubnetSampler(SPACE).sample(3)


def test_ramp_needs_the_length():
    with pytest.raises(UsageError, match='start=0.5 is a share.*max_iters'):
        SubnetSampler(SPACE, start=0.5).ramp(0, None)


@pytest.mark.parametrize('start', [-0.1, 1, 1.5, '0.5', True, float('nan')])
def test_bad_starts_are_named(start):
    with pytest.raises(ConfigError, match=f'mutual.start={start!r}: use a sh'):
        SubnetSampler(SPACE, start=start)


@pytest.mark.parametrize(
    'space, settings',
    [
        (SPACE, dict(single_subnet='0.5x-160')),
        (SPACE, dict(num_random=0, include_min=False)),
        (SubnetSpace(widths=(0.7,), resolution=(64, 32)), {}),
    ],
)
def test_start_of_one_network_alone(space, settings):
    with pytest.raises(ConfigError, match='start=0.5: .* leave start out'):
        SubnetSampler(space, start=0.5, **settings)


@pytest.mark.parametrize(
    ('alone', 'subnet', 'is_wider'),
    [
        # All three have a mean of no more than the one that is trained.
        ('0.5x-160', '0.3-0.6-0.6x-160', True),
        ('0.5x-160', '0.25-0.25-0.99x-160', True),
        ('0.3-0.6-0.6x-160', '0.5x-160', True),
        ('0.5x-160', '0.3-0.4-0.5x-160', False),
        ('0.3-0.6-0.6x-160', '0.3x-128', False),
        ('0.3-0.6-0.6x-160', '0.25-0.6-0.5x-160', False),
    ],
)
def test_no_stage_is_wider_than_that_trained_alone(alone, subnet, is_wider):
    space = SubnetSpace((0.25, 1.0), (224, 160), stages=3)
    # As a network that was trained by stages has it, which draws others.
    sampler = SubnetSampler(space)
    sampler.single_subnet = space.check(alone)
    if is_wider:
        with pytest.raises(ConfigError, match=f'{subnet} is wider than'):
            sampler.choose([subnet])
    else:
        assert sampler.choose([subnet]) == [Subnet.parse(subnet)]


@pytest.mark.parametrize(
    ('options', 'stages', 'name'),
    [
        (dict(num_random=0), 3, 'stages=3'),
        (dict(single_subnet='0.5x-160'), 3, 'stages=3'),
        (dict(stratified=True, num_random=1), 1, 'stratified=True'),
    ],
)
def test_settings_without_effect(options, stages, name):
    space = SubnetSpace((0.25, 1.0), (224, 160), stages=stages)
    with pytest.raises(ConfigError, match=f'mutual.{name}.*leave it out'):
        SubnetSampler(space, **options)
    if 'single_subnet' in options:  # for which none is drawn anyway
        with pytest.raises(ConfigError, match='it out, 0.5x-160 is trained'):
            SubnetSampler(space, **options)
    by_stage = SubnetSpace((0.25, 1.0), (224, 160), stages=3)
    SubnetSampler(by_stage, single_subnet='0.3-0.6-0.6x-160')
