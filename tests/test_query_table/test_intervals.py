import math

import pytest

from mutualnet_mm.query_table import metric_interval, wilson_interval


@pytest.mark.parametrize('right, count', [(0, 10), (81, 263), (263, 263)])
def test_bounds_are_where_the_score_test_just_accepts(right, count):
    """Wilson: bound p has |share - p| = z sqrt(p (1 - p) / n)."""
    share = right / count
    for bound in wilson_interval(share, count):
        distance = 1.959964 * math.sqrt(bound * (1 - bound) / count)
        assert abs(share - bound) == pytest.approx(distance, abs=1e-6)


def test_published_example():
    """Newcombe (1998), table I, method 3: 81 of 263 and 0 of 20."""
    assert wilson_interval(81 / 263, 263) == pytest.approx(
        (0.2553, 0.3662), abs=5e-5
    )
    assert wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def test_percent_and_fractions():
    low, high = wilson_interval(0.75, 1000)
    assert metric_interval('accuracy/top5', 75.0, 1000) == pytest.approx(
        (100 * low, 100 * high)
    )
    assert metric_interval('acc/top1', 0.75, 1000) == pytest.approx(
        (low, high)
    )
    # All right, in single precision.
    top = metric_interval('accuracy/top1', 100.00000762939453, 12)[1]
    assert 100 - 1e-6 < top <= 100


@pytest.mark.parametrize(
    'arguments',
    [
        ('coco/bbox_mAP', 0.4, 100),
        ('acc/mean1', 0.4, 100),
        ('accuracy/top1', None, 100),
        ('accuracy/top1', 40.0, None),
    ],
)
def test_other_metrics_have_none(arguments):
    assert metric_interval(*arguments) is None
