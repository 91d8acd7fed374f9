import numpy as np
import pytest
import torch
from torch import nn
from torch_versions import needs_export

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    LayerRule,
    active_channels,
    active_width,
    make_divisible,
    slim,
)
from mutualnet_mm.slimmable.channels import (
    Piece,
    active_ranges,
    check_rounding,
    count,
    take,
)


@pytest.mark.parametrize(
    'value, expected',
    [
        (64, 64),
        (44.8, 48),
        (12, 16),  # half is rounded up
        (11.2, 16),  # 8 is below 90 % of 11.2
        (19.2, 24),  # 16 is below 90 % of 19.2
        (16.8, 16),  # 16 is above 90 % of 16.8
        (50, 48),
        (3, 8),
        (0.1, 8),
        (1000, 1000),
        (1003.9, 1000),
        (1004, 1008),
    ],
)
def test_make_divisible(value, expected):
    assert make_divisible(value) == expected


def test_make_divisible_keeps_ninety_percent():
    for value in np.linspace(1, 300, 1999):
        rounded = make_divisible(value)
        assert rounded % 8 == 0
        assert rounded >= 0.9 * value
        assert rounded <= max(value + 4, value / 0.9 + 8, 8)


@pytest.mark.parametrize(
    'channels, width, expected',
    [
        (64, 1.0, 64),
        (64, 0.7, 48),
        (64, 0.25, 16),
        (32, 0.35, 16),
        (96, 0.2, 24),
        (20, 0.6, 16),
        (100, 0.45, 48),
        (1000, 0.99, 992),
        (12, 0.95, 12),  # 16, but there are no more than 12
        (3, 0.5, 3),
        (100, 1.0, 100),  # exact, though no multiple of 8
        (100, 1.5, 100),
    ],
)
def test_paper_rounding(channels, width, expected):
    assert active_channels(channels, width) == expected


@pytest.mark.parametrize(
    'channels, width, expected',
    [
        (96, 0.7, 96),  # 6 x 16: 16 * 0.7 = 11.2 -> 16
        (144, 0.7, 96),  # 6 x 24: 16.8 -> 16
        (192, 0.7, 144),  # 6 x 32: 22.4 -> 24
        (576, 0.35, 192),  # 6 x 96: 33.6 -> 32
        (960, 0.25, 240),  # 6 x 160: 40
        (144, 1.0, 144),
    ],
)
def test_paper_rounding_of_mobilenet_v2(channels, width, expected):
    assert active_channels(channels, width, rule=LayerRule(ratio=6)) == (
        expected
    )


@pytest.mark.parametrize(
    'channels, width, expected',
    [
        (64, 0.7, 44),  # 256 * 0.7 = 179.2 -> 176, over 4
        (64, 0.9, 58),  # 230.4 -> 232
        (64, 0.3, 20),  # 76.8 -> 80
        (128, 0.9, 116),  # 460.8 -> 464
        (512, 0.25, 128),
        (10, 1.0, 10),
    ],
)
def test_paper_rounding_of_bottlenecks(channels, width, expected):
    rule = LayerRule(ratio=1 / 4)
    assert active_channels(channels, width, rule=rule) == expected


@pytest.mark.parametrize(
    'channels, width, expected',
    [
        (128, 2.0, 128),
        (128, 1.0, 64),
        (128, 1.6, 104),  # 64 * 1.6 = 102.4
        (100, 2.0, 100),
        (100, 1.0, 48),
        (100, 2.5, 100),
    ],
)
def test_wide_base(channels, width, expected):
    assert active_channels(channels, width, max_width=2.0) == expected


@pytest.mark.parametrize('ratio', [1.0, 6.0, 0.25])
@pytest.mark.parametrize(
    'channels, width, expected',
    [(64, 0.7, 48), (96, 0.7, 64), (64, 0.1, 8), (256, 0.9, 232)],
)
def test_hardware_rounding(channels, width, expected, ratio):
    rule = LayerRule(ratio=ratio)
    assert expected == active_channels(
        channels, width, rule=rule, rounding='hardware'
    )


@pytest.mark.parametrize('ratio', [1.0, 6.0, 0.25])
def test_hardware_rounding_gives_multiples_of_8(ratio):
    rule = LayerRule(ratio=ratio)
    for channels in (8, 24, 64, 144, 2048):
        for width in np.linspace(0.05, 1.0, 39):
            active = active_channels(
                channels, float(width), rule=rule, rounding='hardware'
            )
            assert active % 8 == 0
            assert 8 <= active <= channels


@pytest.mark.parametrize('rounding', ['paper', 'hardware'])
def test_fixed_output_ignores_the_width(rounding):
    rule = LayerRule(fixed=True)
    assert active_channels(1280, 0.25, rule=rule, rounding=rounding) == 1280


def test_unknown_rounding_is_named():
    assert check_rounding('paper') == 'paper'
    with pytest.raises(ConfigError, match="'nearest'.*hardware.*paper"):
        check_rounding('nearest')


@pytest.mark.parametrize('dim', [0, 1])
@pytest.mark.parametrize(
    'ranges, numbers',
    [
        (((0, 10),), range(10)),
        (((0, 4),), range(4)),
        (((0, 4), (7, 10)), [0, 1, 2, 3, 7, 8, 9]),
        (((7, 10),), [7, 8, 9]),
    ],
)
def test_take(ranges, numbers, dim):
    weight = torch.randn(10, 10, 3, 3)
    with torch.inference_mode():
        take(weight, ranges, dim)
    weight.requires_grad_()  # what was made above serves training, too
    taken = take(weight, ranges, dim)
    expected = np.take(weight.detach().numpy(), list(numbers), dim)
    assert np.array_equal(taken.detach().numpy(), expected)
    assert count(ranges) == len(numbers)
    taken.sum().backward()
    assert weight.grad.sum() == expected.size


PIECES = (
    Piece(32, 32, LayerRule(), 32),
    Piece(6, 6, LayerRule(fixed=True), 6),
    Piece(64, 64, LayerRule(parts=2), 32, repeat=2),
    Piece(16, 64, LayerRule(), 32, skip=16),
)


@pytest.mark.parametrize(
    'width, ranges',
    [
        (1.0, ((0, 118),)),
        (0.75, ((0, 24), (32, 86), (102, 110))),
        (0.5, ((0, 16), (32, 70))),
        (0.25, ((0, 8), (32, 54))),
    ],
)
def test_active_ranges(width, ranges):
    assert active_ranges(PIECES, width, 1.0, 'paper') == ranges
    assert active_ranges(PIECES, 2 * width, 2.0, 'paper') == ranges


@pytest.mark.parametrize('rounding', ['paper', 'hardware'])
@pytest.mark.parametrize('parts', [2, 3, 4])
def test_parts_are_rounded_apart(rounding, parts):
    for width in np.linspace(0.05, 1, 40):
        whole = active_channels(
            parts * 40, width, rule=LayerRule(parts=parts), rounding=rounding
        )
        assert whole == parts * active_channels(40, width, rounding=rounding)


@pytest.mark.parametrize('rounding', ['paper', 'hardware'])
@pytest.mark.parametrize('group_width', [16, 24, 120])
def test_whole_groups(rounding, group_width):
    """A divisor keeps the nearest number of groups, at least one."""
    rule = LayerRule(divisor=group_width)
    for groups in (1, 2, 4, 7):
        for width in np.linspace(0.05, 0.99, 40):
            found = active_channels(
                groups * group_width, width, rule=rule, rounding=rounding
            )
            wanted = groups * width
            near = max(1, np.floor(wanted + 0.5))
            assert found == group_width * (
                near + 1 if near < 0.9 * wanted else near
            )


class Concatenated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 72, 1), nn.Conv2d(3, 88, 1)
        self.out = nn.Conv2d(160, 10, 1)

    def forward(self, x):
        return self.out(torch.cat([self.a(x), self.b(x)], 1))


@needs_export
def test_an_export_leaves_nothing_behind():
    """Its fake tensors, whose values nothing but itself could use."""
    net = slim(Concatenated()).eval()
    x = torch.randn(1, 3, 4, 4)
    with torch.no_grad(), active_width(net, 0.5):
        exported = torch.export.export(net, (x,)).module()
        found = net(x)
        assert type(found) is torch.Tensor
        assert torch.equal(exported(x), found)


@pytest.mark.parametrize(
    'name, value',
    [('ratio', 0), ('ratio', -1.0), ('divisor', 0), ('parts', 0)],
)
def test_a_rule_out_of_range_is_refused(name, value):
    with pytest.raises(ConfigError, match=f'{name}={value} of a layer rule'):
        LayerRule(**{name: value})
