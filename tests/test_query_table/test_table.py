import itertools
import math
import random
from dataclasses import replace

import pytest

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.query_table import COSTS, Latency, QueryTable, TableEntry

FULL = Subnet(1.0, 224)
DEVICES = ('cpu-t2-b1', 'cpu-t2-b8')


def make_table(rows, metric='accuracy/top1', **settings):
    """Of rows ``(macs, params, medians, score)``, medians by device.

    What else is measured follows from a median, each in its own way, so that
    budgets of them are met by different rows.
    """
    entries = [
        TableEntry(
            Subnet(1.0, 224 - i),
            macs,
            params,
            {} if score is None else {'accuracy/top1': score},
            {k: Latency(v, **others(v)) for k, v in medians.items()},
        )
        for i, (macs, params, medians, score) in enumerate(rows)
    ]
    return QueryTable(entries, metric, 'classification', FULL, **settings)


def others(median):
    p90 = {1.5: 9.0, 2.5: 3.0, 3.5: 4.0, 4.5: 8.0}.get(median, 2 * median)
    found = dict(p90=p90)
    if median != 3.5:
        found.update(images_per_second=(7 * median) % 5 + 0.25, best_batch=4)
    if median != 2.5:
        found.update(energy_mj=(3 * median) % 4 + 0.5)
    return found


def random_rows(rng, count):
    """From few values, so that there are ties of all kinds."""
    return [
        (
            rng.randint(1, 8),
            rng.randint(1, 8),
            {
                device: rng.choice([1.5, 2.5, 3.5, 4.5])
                for device in DEVICES
                if rng.random() < 0.8
            },
            rng.choice([None, math.nan, 50.0, 60.0, 70.0, 80.0]),
        )
        for _ in range(count)
    ] + [(9, 9, dict.fromkeys(DEVICES, 9.0), 55.0)]


def cost_of(row, name, device):
    macs, params, medians, _ = row
    found = dict(macs=macs, params=params)
    if device in medians:
        found.update(latency_ms=medians[device], **others(medians[device]))
        found['p90_ms'] = found['p90']
    return found.get(name, math.nan)


def is_within(cost, name, budget):
    return cost >= budget if name == 'images_per_second' else cost <= budget


def is_number(score):
    return score is not None and score == score


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('cost', COSTS)
@pytest.mark.parametrize('seed', range(8))
def test_pareto_is_what_no_entry_beats(seed, cost, device):
    rows = random_rows(random.Random(seed), 40)
    table = make_table(rows)
    points = [
        (cost_of(row, cost, device), row[3], entry.subnet)
        for row, entry in zip(rows, table.entries)
        if is_number(row[3]) and is_number(cost_of(row, cost, device))
    ]
    expected = {
        subnet
        for mine, score, subnet in points
        if not any(
            is_within(c, cost, mine)
            and s >= score
            and (c != mine or s > score)
            for c, s, _ in points
        )
    }
    front = table.pareto_by(cost, device)
    assert {entry.subnet for entry in front} == expected
    assert len(front) == len(expected)
    costs = [entry.cost(cost, device) for entry in front]
    assert costs == sorted(costs, reverse=cost == 'images_per_second')
    if cost == 'macs':
        assert table.pareto == front


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('seed', range(8))
def test_look_up_equals_brute_force(seed, device):
    rng = random.Random(seed)
    rows = random_rows(rng, 40)
    table = make_table(rows)
    for chosen in [*itertools.product([True, False], repeat=6)]:
        budgets = {
            name: rng.choice([rng.uniform(0.5, 10.0), math.inf])
            for name, use in zip(COSTS, chosen)
            if use
        }
        if budgets.get('images_per_second') == math.inf:
            budgets['images_per_second'] = 1e-6  # none is a limit
        within = [
            row
            for row in rows
            if is_number(row[3])
            and all(
                is_within(cost_of(row, k, device), k, v)
                for k, v in budgets.items()
            )
        ]
        if not within:
            with pytest.raises(UsageError, match='no subnet is within'):
                table.best(**budgets, device=device)
            continue
        found = table.best(**budgets, device=device)
        assert all(
            is_within(found.cost(k, device), k, v) for k, v in budgets.items()
        )
        assert table.score(found) == max(row[3] for row in within)
        # None is as good and cheaper in what is limited, then in MACs.
        order = [*budgets, 'macs', 'params']
        signs = [1 - 2 * (name == 'images_per_second') for name in order]
        assert [
            sign * found.cost(name, device) for sign, name in zip(signs, order)
        ] == min(
            [
                sign * cost_of(row, name, device)
                for sign, name in zip(signs, order)
            ]
            for row in within
            if row[3] == table.score(found)
        )
        if len(budgets) == 1:
            assert found in table.pareto_by(*budgets, device)


def test_a_budget_may_be_exactly_met():
    table = make_table([(100, 10, {}, 50.0), (200, 20, {'a': 0.3}, 60.0)])
    assert table.best(macs=100).macs == 100
    assert table.best(macs=199.9).macs == 100
    assert table.best(macs=200).macs == 200
    assert table.best(params=19).macs == 100
    assert table.best(latency_ms=0.3).macs == 200


def test_equal_macs_keep_the_better_one_and_twins_stay():
    table = make_table(
        [(100, 3, {}, 60.0), (100, 2, {}, 60.0), (100, 1, {}, 59.0)]
        + [(200, 1, {}, 60.0)]
    )
    assert [entry.params for entry in table.pareto] == [3, 2]
    assert table.best(macs=150).params == 2  # the cheaper twin
    assert table.best(params=1).macs == 200  # not on the front of MACs


def test_devices():
    table = make_table(
        [
            (100, 1, {}, 50.0),
            (200, 2, {'b': 9.0}, 60.0),
            (300, 3, {'a': 2.0, 'b': 1.0}, 70.0),
        ]
    )
    assert table.devices == ['b', 'a']
    assert [e.macs for e in table.pareto_by('latency_ms', 'b')] == [300]
    with pytest.raises(UsageError) as error:
        table.best(latency_ms=5)
    assert str(error.value) == (
        "device=None: name one that latencies were measured on: 'b' or 'a'"
    )
    for look_up in (
        lambda: table.best(latency_ms=5, device='c'),
        lambda: table.best(macs=5, device='c'),
        lambda: table.pareto_by('latency_ms', 'c'),
    ):
        with pytest.raises(UsageError, match="device='c': .*: 'b' or 'a'"):
            look_up()


def test_the_only_device_need_not_be_named():
    table = make_table([(100, 1, {'a': 2.0}, 50.0), (200, 1, {}, 60.0)])
    assert table.find_device() == 'a'
    assert table.best(latency_ms=100).macs == 100
    assert table.pareto_by('latency_ms') == [table.entries[0]]
    with pytest.raises(UsageError, match="device='b': .*: 'a'"):
        table.best(latency_ms=100, device='b')


def test_latencies_are_put_in():
    table = make_table([(100, 1, {'a': 2.0}, 50.0), (200, 1, {}, 60.0)])
    small, large = (entry.subnet for entry in table.entries)
    both = table.with_latencies('b', {large: Latency(7, 8)})
    assert table.devices == ['a']  # the old table stays as it was
    assert both.entries[0] == table.entries[0]
    assert both.entries[1].latency_ms == {'b': Latency(7.0, 8.0)}
    assert both.best(latency_ms=7, device='b').subnet == large
    # What was measured before under that name makes way as a whole.
    again = both.with_latencies('a', {large: Latency(3, 4)})
    assert again.entries[0].latency_ms == {}
    assert again.entries[1].latency_ms == {
        'b': Latency(7, 8),
        'a': Latency(3, 4),
    }
    assert again.devices == ['b', 'a']
    with pytest.raises(UsageError, match='latency of 0.3x-64: the table has'):
        table.with_latencies('b', {Subnet(0.3, 64): Latency(1, 1)})
    with pytest.raises(UsageError, match="device='': name it"):
        table.with_latencies('', {})


@pytest.mark.parametrize(
    'budgets, message',
    [
        (
            dict(macs=99),
            'no subnet is within macs=99: the least is macs=1,000 of 1.0x-223',
        ),
        (
            dict(latency_ms=1.25, device='a'),
            'no subnet is within latency_ms=1.25: the least is '
            'latency_ms=1.5 of 1.0x-223',
        ),
        (
            dict(latency_ms=1.0, device='b'),
            'no subnet that has a score has latency_ms: measure it with '
            'mutualnet latency',
        ),
        (dict(macs=0), 'budget macs=0: use a positive number'),
        (dict(params=math.nan), 'budget params=nan: use a positive number'),
        (dict(params='1M'), "budget params='1M': use a positive number"),
        (
            dict(latency_ms=-1, device='a'),
            'budget latency_ms=-1: use a positive number',
        ),
    ],
)
def test_budgets_that_cannot_be_met(budgets, message):
    table = make_table(
        [
            (2000, 30, {'a': 2.5}, 60.0),
            (1000, 40, {'a': 1.5}, 50.0),
            (1, 1, {'b': 0.5}, None),
        ]
    )
    with pytest.raises(UsageError) as error:
        table.best(**budgets)
    assert str(error.value) == message


def test_what_was_never_measured():
    table = make_table([(1000, 2, {}, 60.0)])
    for look_up in (
        lambda: table.best(latency_ms=1.0),
        lambda: table.best(macs=1e9, device='cpu'),
        lambda: table.pareto_by('latency_ms'),
    ):
        with pytest.raises(UsageError) as error:
            look_up()
        assert str(error.value) == (
            'the table has no latency_ms: measure it with '
            'mutualnet latency, or give a budget of macs'
        )
    with pytest.raises(UsageError, match="'flops': use macs or latency_ms"):
        table.pareto_by('flops')


def test_budgets_met_only_one_by_one():
    table = make_table([(1000, 2, {}, 60.0), (2000, 1, {}, 50.0)])
    with pytest.raises(UsageError) as error:
        table.best(macs=1500, params=1)
    assert str(error.value) == (
        'no subnet is within macs=1,500 and params=1 together, though each '
        'alone is met: ease one of them (the least is macs=1,000 of 1.0x-224 '
        'and params=1 of 1.0x-223)'
    )
    with pytest.raises(UsageError) as error:
        table.best(macs=999, params=1)
    assert str(error.value) == (
        'no subnet is within macs=999 and params=1: the least is '
        'macs=1,000 of 1.0x-224 and params=1 of 1.0x-223'
    )


def test_ranking_by_another_metric():
    entries = [
        TableEntry(Subnet(0.5, 128), 1, 1, {'a': 1.0, 'b': 9.0}),
        TableEntry(Subnet(1.0, 128), 2, 2, {'a': 2.0, 'b': 8.0}),
    ]
    table = QueryTable(entries, 'a', 'detection', FULL)
    assert table.best().subnet == Subnet(1.0, 128)
    assert table.ranked_by('b').best().subnet == Subnet(0.5, 128)
    assert table.ranked_by('b').views is None
    with pytest.raises(UsageError, match="'c': use a or b"):
        table.ranked_by('c')


@pytest.mark.parametrize(
    'change, metric',
    [
        (lambda table: table.ranked_by('acc/top1'), 'acc/top1'),
        (lambda table: table.with_latencies('cpu', {}), 'b'),
    ],
)
def test_what_is_made_of_a_table_keeps_the_rest(change, metric):
    entry = TableEntry(Subnet(0.5, 128, 3), 1, 1, {'acc/top1': 0.5, 'b': 9.0})
    full = Subnet(1.0, 224, 8)
    table = QueryTable([entry], 'b', 'action', full, 50, views=30)
    again = change(table)
    assert again.entries == table.entries
    assert (again.metric, again.task, again.full) == (metric, 'action', full)
    assert (again.num_images, again.views) == (50, 30)


def test_a_subnet_comes_once():
    entry = TableEntry(Subnet(0.5, 128), 1, 1, {'a': 1.0})
    with pytest.raises(UsageError, match='0.5x-128 is in the table twice'):
        QueryTable([entry, entry], 'a', 'detection', FULL)


def measured_table():
    """Three subnets on two devices, of which one tells all."""
    rows = [
        (Latency(9.0, 10.0, 100.0, 8, 50.0), 80.0),
        (Latency(5.0, 20.0, 200.0, 4, 30.0), 70.0),
        (Latency(4.0, 30.0, 150.0, 1, 10.0), 60.0),
    ]
    entries = [
        TableEntry(
            Subnet(1.0 - i / 4, 224),
            100 * (3 - i),
            3 - i,
            {'accuracy/top1': score},
            {'all': latency, 'times': Latency(1.0, 2.0)},
        )
        for i, (latency, score) in enumerate(rows)
    ]
    return QueryTable(entries, 'accuracy/top1', 'classification', FULL)


@pytest.mark.parametrize(
    'budgets, number',
    [
        (dict(p90_ms=10), 0),
        (dict(p90_ms=29), 0),
        (dict(energy_mj=30), 1),
        (dict(energy_mj=29.9), 2),
        (dict(images_per_second=100), 0),
        (dict(images_per_second=100.1), 1),
        (dict(images_per_second=120, energy_mj=20), 2),
        (dict(images_per_second=160, latency_ms=5), 1),
    ],
)
def test_budgets_of_what_else_is_measured(budgets, number):
    """By hand; one device has energy or throughput, so it goes unnamed."""
    table = measured_table()
    if not {'energy_mj', 'images_per_second'} & {*budgets}:
        with pytest.raises(UsageError, match="were measured on: 'all' or"):
            table.best(**budgets)
        budgets = dict(budgets, device='all')
    assert table.best(**budgets) == table.entries[number]


@pytest.mark.parametrize(
    'budgets, message',
    [
        (
            dict(energy_mj=5),
            'no subnet is within energy_mj=5: the least is energy_mj=10.0 of '
            '0.5x-224',
        ),
        (
            dict(images_per_second=1000),
            'no subnet is within images_per_second=1,000: the most is '
            'images_per_second=200.0 of 0.75x-224',
        ),
        (
            dict(images_per_second=180, energy_mj=20),
            'no subnet is within energy_mj=20 and images_per_second=180 '
            'together, though each alone is met: ease one of them (the least '
            'is energy_mj=10.0 of 0.5x-224 and the most is '
            'images_per_second=200.0 of 0.75x-224)',
        ),
        (
            dict(p90_ms=10, latency_ms=4, device='all'),
            'no subnet is within latency_ms=4 and p90_ms=10 together, though '
            'each alone is met: ease one of them (the least is latency_ms=4.0 '
            'of 0.5x-224 and p90_ms=10.0 of 1.0x-224)',
        ),
        (
            dict(energy_mj=5, device='times'),
            "device='times': name one that energy_mj was measured on: 'all'",
        ),
        (
            dict(images_per_second=math.nan),
            'budget images_per_second=nan: use a positive number',
        ),
        (dict(energy_mj=-1), 'budget energy_mj=-1: use a positive number'),
    ],
)
def test_measured_budgets_that_cannot_be_met(budgets, message):
    with pytest.raises(UsageError) as error:
        measured_table().best(**budgets)
    assert str(error.value) == message


def test_figures_that_no_device_has_together():
    table = measured_table()
    rate = Latency(1.0, 2.0, images_per_second=7.0, best_batch=2)
    small = table.entries[2].subnet
    energy = {
        e.subnet: Latency(1.0, 2.0, energy_mj=3.0) for e in table.entries
    }
    table = table.with_latencies('all', energy)
    table = table.with_latencies('times', {small: rate})
    with pytest.raises(UsageError) as error:
        table.best(energy_mj=9, images_per_second=1)
    assert str(error.value) == (
        'the table has no device with energy_mj and images_per_second: '
        'measure it with mutualnet latency --energy --throughput 1 8 32, or '
        'give a budget of macs'
    )
    timed = QueryTable(
        [replace(e, latency_ms={'times': rate}) for e in table.entries],
        *(table.metric, table.task, table.full),
    )
    with pytest.raises(UsageError, match='table has no energy_mj: measure'):
        timed.best(energy_mj=9, images_per_second=1)
    assert table.best(images_per_second=7).subnet == small
