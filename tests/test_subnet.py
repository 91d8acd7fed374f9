import copy
import json
import pickle

import numpy as np
import pytest

from mutualnet_mm import ConfigError, Subnet, SubnetSpace
from mutualnet_mm.widths import StageWidths, stage_widths

SPACE = SubnetSpace((0.25, 1.0), (224, 192, 160, 128))
VIDEO = SubnetSpace((0.63, 1.0), (224, 178, 142), (8, 5, 3))


@pytest.mark.parametrize(
    'text, fields',
    [
        ('0.7x-160', (0.7, 160, None)),
        ('1.0x-224', (1.0, 224, None)),
        ('1x-224', (1.0, 224, None)),
        (' 0.63x-142-3 ', (0.63, 142, 3)),
        ('1e-05x-8', (1e-5, 8, None)),
        ('0.25-0.5-1.0x-224', (StageWidths((0.25, 0.5, 1.0)), 224, None)),
        ('0.25-1e-05x-8-3', (StageWidths((0.25, 1e-5)), 8, 3)),
        ('0.5-0.5x-224', (0.5, 224, None)),
    ],
)
def test_parse(text, fields):
    subnet = Subnet.parse(text)
    assert (subnet.width, subnet.resolution, subnet.frames) == fields
    assert Subnet.parse(subnet) is subnet


def test_str():
    assert str(Subnet(0.7, 160)) == '0.7x-160'
    assert str(Subnet(1, 224)) == '1.0x-224'
    assert str(Subnet(0.63, 142, 3)) == '0.63x-142-3'


def test_round_trip():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        subnet = Subnet(
            float(10.0 ** rng.uniform(-12, 1)),
            int(rng.integers(1, 2000)),
            int(rng.integers(1, 64)) if rng.random() < 0.5 else None,
        )
        assert Subnet.parse(str(subnet)) == subnet


@pytest.mark.parametrize(
    'text',
    ['-0.5-0.7x-160', '0.5-x-160', '0.5--0.7x-160', '0.5-0.7']
    + ['', '0.7', '0.7x160', '0.7-160', 'x-160', '.5x-160', '-0.5x-160']
    + ['0.7x-16.5', '0.7x--160', '0.7x-160-', '0.7x-160-3-1', '0.7x-160 3']
    + ['nanx-160', 'infx-160', None],
)
def test_bad_texts_are_named(text):
    with pytest.raises(ConfigError) as error:
        Subnet.parse(text)
    assert f'{text!r} is not understood' in str(error.value)


def test_widths_of_stages():
    """They sort by their mean, and are told apart by each of them."""
    widths, others = stage_widths((0.25, 0.75)), stage_widths((0.75, 0.25))
    assert widths == StageWidths((0.25, 0.75)) and widths != others
    half = 0.5
    assert widths != half and half != widths
    assert len({widths, others, half}) == 3
    assert 0.4 < widths < 0.6 and f'{widths:g}' == '0.25-0.75'
    assert type(stage_widths((0.5, 0.5))) is float
    for copied in (copy.deepcopy(widths), pickle.loads(pickle.dumps(widths))):
        assert copied == widths and copied.stages == (0.25, 0.75)
    subnet = Subnet(widths, 160, 4)
    assert str(subnet) == '0.25-0.75x-160-4'
    assert Subnet.parse(str(subnet)) == subnet
    assert json.loads(json.dumps(widths)) == 0.5


def test_spaces_of_stages():
    space = SubnetSpace((0.25, 1.0), (224, 160), stages=2)
    assert space.check('0.25-1.0x-160') and space.check('0.5x-160')
    cost = space.relative_cost(Subnet.parse('0.25-0.75x-224'))
    assert cost == pytest.approx((0.25**2 + 0.75**2) / 2)
    for text, message in (
        ('0.2-1.0x-160', r'width 0.2-1.0 is outside of the trained'),
        ('0.5-1.1x-160', r'width 0.5-1.1 is outside'),
        ('0.5-0.5-1.0x-160', 'widths of 3 stages, and those of 2 are trained'),
    ):
        with pytest.raises(ConfigError, match=message):
            space.check(text)
    with pytest.raises(ConfigError, match='of 2 stages, and those of 1'):
        SPACE.check('0.5-1.0x-160')


@pytest.mark.parametrize(
    'text', ['0.0x-160', '0.5-0.0x-160', '0.7x-0', '0.7x-160-0']
)
def test_zeros_in_texts_are_refused(text):
    with pytest.raises(ConfigError, match=' 0.*must be positive'):
        Subnet.parse(text)


@pytest.mark.parametrize(
    'fields',
    [(0, 160), (-0.5, 160), (float('nan'), 160), (0.5, 0), (0.5, -1)]
    + [(0.5, 160.5), (0.5, '160'), (0.5, 160, 0), (0.5, 160, 2.5)],
)
def test_bad_fields_are_refused(fields):
    with pytest.raises(ConfigError, match='must be positive'):
        Subnet(*fields)


def test_range_of_widths():
    assert SPACE.is_range
    assert SPACE.full == Subnet(1.0, 224)
    assert SPACE.smallest == Subnet(0.25, 128)
    assert VIDEO.full == Subnet(1.0, 224, 8)
    assert VIDEO.smallest == Subnet(0.63, 142, 3)


@pytest.mark.parametrize(
    'widths', [[0.7], [0.5, 1.0], [1.0, 0.75, 0.5], [0.5, 1, 0.75]]
)
def test_list_of_widths(widths):
    space = SubnetSpace(widths=widths, resolution=(224, 160))
    assert not space.is_range
    assert space.full == Subnet(max(widths), 224)
    assert space.smallest == Subnet(min(widths), 160)


@pytest.mark.parametrize(
    'width, step, expected',
    [
        ((0.25, 1.0), 0.05, [i / 100 for i in range(25, 101, 5)]),
        ((0.25, 1.0), 0.25, [0.25, 0.5, 0.75, 1.0]),
        ((0.63, 1.0), 0.05, [0.63, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1]),
        ((0.9, 1.0), 0.05, [0.9, 0.95, 1.0]),
        ((1.0, 2.0), 0.5, [1.0, 1.5, 2.0]),
        ([0.5, 0.75, 1.0], 0.05, [0.5, 0.75, 1.0]),
        ([0.7], 0.05, [0.7]),
    ],
)
@pytest.mark.parametrize('frames', [None, (8, 5, 3)])
def test_grid(width, step, expected, frames):
    name = 'widths' if isinstance(width, list) else 'width_range'
    space = {name: width, 'resolution': (224, 160), 'frames': frames}
    grid = SubnetSpace(**space).grid(step)
    assert set(grid) == {
        Subnet(w, r, t)
        for w in expected
        for r in (224, 160)
        for t in frames or (None,)
    }
    assert len(grid) == len(set(grid))
    assert grid[0] == Subnet(max(expected), 224, frames and 8)
    assert grid[-1] == Subnet(min(expected), 160, frames and 3)


@pytest.mark.parametrize('step', [1 / 3, 1 / 15, 0.1])
@pytest.mark.parametrize('ends', [(1 / 3, 1.0), (0.1, 1 / 3), (1 / 7, 8 / 9)])
def test_a_grid_is_inside_of_its_range(ends, step):
    """However its ends are rounded; and no two widths are the same."""
    space = SubnetSpace(ends)
    grid = [space.check(subnet).width for subnet in space.grid(step)]
    assert (grid[0], grid[-1]) == ends[::-1]
    assert all(a - b > 1e-6 for a, b in zip(grid, grid[1:]))


def test_a_grid_of_too_many_widths():
    """Each of its subnets is tested: nobody means millions."""
    with pytest.raises(ConfigError, match='step=1e-09 gives 750000001 widths'):
        SubnetSpace((0.25, 1.0)).grid(1e-9)


@pytest.mark.parametrize('text', ['1.0x-224', '0.25x-128', '0.3x-200'])
def test_check_accepts(text):
    assert SPACE.check(text) == Subnet.parse(text)
    assert VIDEO.check('0.7x-150-4') == Subnet(0.7, 150, 4)


@pytest.mark.parametrize(
    'space, text, message',
    [
        (SPACE, '0.2x-160', r'0\.2x-160.*width 0\.2 .*\[0\.25, 1\.0\]'),
        (SPACE, '1.1x-160', r'1\.1x-160.*width 1\.1 '),
        (SPACE, '0.5x-225', '0.5x-225.*resolution 225.*224'),
        (SPACE, '0.5x-160-8', '0.5x-160-8.*leave out its frames'),
        (VIDEO, '0.7x-160', '0.7x-160.*name its frames'),
        (VIDEO, '0.7x-160-9', '0.7x-160-9.*9 frames.*8'),
        (VIDEO, 'wide', "'wide' is not understood"),
    ],
)
def test_check_refuses(space, text, message):
    with pytest.raises(ConfigError, match=message):
        space.check(text)


@pytest.mark.parametrize(
    'options, name',
    [
        (dict(widths=()), r'widths=\(\)'),
        (dict(widths=0.5), 'widths=0.5'),
        (dict(widths='0.5'), "widths='0.5'"),
        (dict(widths=(0.5, '1.0')), 'widths=.*1.0'),
        (dict(width_range=(0, 1.0)), 'width_range=.*positive'),
        (dict(width_range=(-0.5, 1.0)), 'width_range=.*positive'),
        (dict(width_range=(1.0,)), 'width_range=.*least and the largest'),
        (dict(width_range=(1.0, 0.5)), 'width_range=.*least and the largest'),
        (dict(width_range=(0.5, 0.5)), 'width_range=.*least and the largest'),
        (dict(width_range=(0.5, 0.7, 1.0)), 'width_range=.*mutual.widths'),
        (
            dict(width_range=(0.5, 1.0), widths=(0.5, 1.0)),
            'width_range=.*mutual.widths=.*give one',
        ),
        (dict(resolution=[]), r'resolution=\[\]'),
        (dict(resolution=224), 'resolution=224'),
        (dict(resolution=('224',)), 'resolution='),
        (dict(resolution=(128, 224)), 'resolution=.*128, 224'),
        (dict(resolution=(224, 160.5)), 'resolution=.*160.5'),
        (dict(resolution=(224, 0)), 'resolution=.*0'),
        (dict(width_range=(0.5, 1.0), stages=0), 'stages=0: use a whole'),
        (dict(width_range=(0.5, 1.0), stages=True), 'stages=True: use a wh'),
        (dict(widths=(0.5, 1.0), stages=4), 'stages=4: .*takes a width_range'),
        (dict(frames=[]), r'frames=\[\]'),
        (dict(frames=(3, 8)), 'frames=.*3, 8'),
        (dict(frames=(8, -3)), 'frames=.*-3'),
        (dict(resolution=(16, 16, 8)), r'resolution=\(16, 16, 8\): 16 is li'),
        (dict(resolution=[16, 8, 8]), 'resolution=.*: 8 is listed more than'),
        (dict(frames=(8, 4, 4, 8)), 'frames=.*: 8 is listed more than once'),
        (dict(widths=(1, 0.5, 1.0)), 'widths=.*: 1 is listed more than once'),
    ],
)
def test_bad_spaces_are_refused(options, name):
    with pytest.raises(ConfigError, match=rf'mutual\.{name}'):
        SubnetSpace(**options)


@pytest.mark.parametrize(
    'options',
    [dict(widths=(0.25, True)), dict(resolution=(True,)), dict(frames=[True])],
)
def test_bools_are_refused(options):
    with pytest.raises(ConfigError, match='True'):
        SubnetSpace(**options)


def test_width_of_text_is_refused():
    with pytest.raises(ConfigError, match="'0.7'"):
        Subnet('0.7', 160)


@pytest.mark.parametrize(
    'subnet, below',
    [
        ('1.0x-142-3', False),
        ('0.7x-100-8', True),
        ('0.7x-224-2', True),
        ('0.7x-160-5', False),
    ],
)
def test_sizes_below_the_trained_ones(subnet, below):
    assert VIDEO.is_below(Subnet.parse(subnet)) == below
