"""What must hold for any input, tried on many: by hypothesis."""

import json
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutualnet_mm import Subnet, SubnetSpace, UsageError
from mutualnet_mm.models.clips import frame_indices
from mutualnet_mm.query_table import (
    Latency,
    QueryTable,
    TableEntry,
    table_from_dict,
    table_to_dict,
)
from mutualnet_mm.sampler import SubnetSampler
from mutualnet_mm.slimmable.channels import (
    ROUNDING,
    LayerRule,
    active_channels,
)

many = settings(deadline=None, derandomize=True, database=None)

subnets = st.builds(
    Subnet,
    st.floats(1e-6, 1e6, allow_subnormal=False),
    st.integers(1, 10**6),
    st.none() | st.integers(1, 10**4),
)


@many
@given(subnets)
def test_a_subnet_is_read_as_it_is_written(subnet):
    assert Subnet.parse(str(subnet)) == subnet


rules = st.builds(
    LayerRule,
    ratio=st.sampled_from([0.25, 0.5, 1.0, 2.0, 6.0]),
    divisor=st.sampled_from([1, 4, 8, 16]),
)


@many
@given(
    st.integers(1, 64),
    st.floats(0.05, 2.0),
    st.floats(0.05, 2.0),
    rules,
    st.sampled_from(sorted(ROUNDING)),
)
def test_channels_grow_with_the_width(count, a, b, rule, rounding):
    """Never fewer of a larger width; all of them at the largest."""
    channels = int(count * 8 * max(rule.ratio, 1) * rule.divisor)
    narrow, wide = (
        active_channels(channels, width, 2.0, rule, rounding)
        for width in sorted((a, b))
    )
    assert 0 < narrow <= wide <= channels
    assert active_channels(channels, 2.0, 2.0, rule, rounding) == channels


# Few different values, so that costs and scores are often equal.
small = st.integers(1, 5)
entries = st.lists(
    st.tuples(small, small, small, st.none() | small), min_size=1, max_size=9
)


def table(rows):
    """A table of rows of MACs, parameters, score and milliseconds."""
    return QueryTable(
        [
            TableEntry(
                Subnet(1.0, i + 1),
                macs,
                params,
                {'top1': float(score)},
                {} if time is None else {'cpu': Latency(time, time + 1)},
            )
            for i, (macs, params, score, time) in enumerate(rows)
        ],
        'top1',
        'classification',
        Subnet(1.0, len(rows)),
        num_images=100,
    )


def costs(row):
    return dict(zip(('macs', 'params', 'latency_ms'), (*row[:2], row[3])))


@many
@given(entries, st.sampled_from(['macs', 'params', 'latency_ms']))
def test_pareto_set_by_brute_force(rows, cost):
    found = table(rows)
    known = [i for i, row in enumerate(rows) if costs(row)[cost] is not None]
    if not known:
        with pytest.raises(UsageError, match='no latency_ms'):
            found.pareto_by(cost)
        return
    points = {i: (costs(rows[i])[cost], -rows[i][2]) for i in known}
    expected = [
        i
        for i, mine in points.items()
        if not any(
            other != mine and other[0] <= mine[0] and other[1] <= mine[1]
            for other in points.values()
        )
    ]
    front = [entry.subnet.resolution - 1 for entry in found.pareto_by(cost)]
    assert sorted(front) == expected
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


@many
@given(
    entries,
    st.dictionaries(
        st.sampled_from(['macs', 'params', 'latency_ms']),
        st.sampled_from([0.5, 1, 2.5, 4, 9]),
        min_size=1,
    ),
)
def test_best_by_brute_force(rows, budgets):
    """Of the highest score; of those the cheapest in what is limited."""

    def rank(row):
        order = ('macs', 'latency_ms', 'params')  # of ``best``
        limited = [cost for cost in order if cost in budgets]
        return (-row[2], *(costs(row)[name] for name in limited), row[0])

    within = [
        row
        for row in rows
        if all(
            costs(row)[name] is not None and costs(row)[name] <= budget
            for name, budget in budgets.items()
        )
    ]
    if not within:
        with pytest.raises(UsageError):
            table(rows).best(**budgets)
        return
    found = rows[table(rows).best(**budgets).subnet.resolution - 1]
    assert rank(found) == min(map(rank, within))


names = st.text(st.characters(codec='utf-8'), min_size=1, max_size=8)
# Tests run with denormal numbers flushed to zero.
numbers = st.floats(
    allow_nan=False, allow_infinity=False, allow_subnormal=False
)
times = st.floats(1e-9, 1e9)
records = st.builds(
    TableEntry,
    subnets,
    st.integers(1, 10**15),
    st.integers(1, 10**12),
    st.dictionaries(names, st.none() | numbers).map(
        lambda metrics: dict(metrics, top1=50.0)
    ),
    st.dictionaries(names, st.builds(Latency, times, times), max_size=2),
)


@many
@given(
    st.lists(records, min_size=1, max_size=4, unique_by=lambda e: e.subnet),
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(1, 30),
)
def test_a_table_is_read_as_it_is_written(rows, images, views):
    made = QueryTable(rows, 'top1', 'action', rows[0].subnet, images, views)
    text = json.dumps(table_to_dict(made), allow_nan=False)
    read = table_from_dict(json.loads(text))
    for name in ('entries', 'metric', 'task', 'full', 'num_images', 'views'):
        assert getattr(read, name) == getattr(made, name)


@many
@given(
    st.integers(1, 300).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(1, n))
    )
)
def test_frames_are_the_middles_of_equal_parts(sizes):
    available, frames = sizes
    found = frame_indices(available, frames)
    assert len(set(found)) == frames and found == sorted(found)
    for i, index in enumerate(found):
        # The middle of the part lies in the frame that is taken.
        middle = (i + 0.5) * available / frames
        assert index == math.floor(middle + 1e-9)
    if frames == available:
        assert found == list(range(available))


@pytest.mark.parametrize('shared', [False, True])
def test_sampler_draws_each_value_as_often(shared):
    """Widths uniform in the range, sizes uniform in the list (Sec. 3.2)."""
    space = SubnetSpace((0.25, 1.0), (224, 192, 160, 128), (8, 5, 3))
    sampler = SubnetSampler(
        space, resolution_mode='shared' if shared else 'independent'
    )
    steps = [sampler.sample(i) for i in range(3000)]
    drawn = [step[tag] for step in steps for tag in ('rand1', 'rand2')]
    bins = Counter(int((s.width - 0.25) / 0.75 * 10) for s in drawn)
    # Six standard deviations of a binomial.
    assert sorted(bins) == list(range(10))
    near(bins, len(drawn), 10)
    independent = [step['min'] for step in steps]
    for values, number in [
        ([s.resolution for s in independent], 4),
        ([s.frames for s in independent], 3),
        ([(s.resolution, s.frames) for s in independent], 12),
    ]:
        near(Counter(values), len(steps), number)
    for step in steps[:100]:
        sizes = {(s.resolution, s.frames) for s in step.values()}
        full = step['full']
        assert not shared or len(sizes) == 1
        assert shared or (full.resolution, full.frames) == (224, 8)
        assert (full.width, step['min'].width) == (1.0, 0.25)


def near(counts, total, number):
    assert len(counts) == number
    share = 1 / number
    spread = math.sqrt(total * share * (1 - share))
    for count in counts.values():
        assert abs(count - total * share) < 6 * spread
