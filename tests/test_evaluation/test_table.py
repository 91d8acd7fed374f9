import itertools
import math
import random

import pytest

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.evaluation import QueryTable, TableEntry

FULL = Subnet(1.0, 224)


def make_table(rows, metric='accuracy/top1', **settings):
    """Of rows ``(macs, params, latency_ms, score)``."""
    entries = [
        TableEntry(
            Subnet(1.0, 224 - i),
            macs,
            params,
            {} if score is None else {'accuracy/top1': score},
            latency,
        )
        for i, (macs, params, latency, score) in enumerate(rows)
    ]
    return QueryTable(entries, metric, 'classification', FULL, **settings)


def random_rows(rng, count):
    """From few values, so that there are ties of all kinds."""
    return [
        (
            rng.randint(1, 8),
            rng.randint(1, 8),
            rng.choice([None, 1.5, 2.5, 3.5]),
            rng.choice([None, math.nan, 50.0, 60.0, 70.0, 80.0]),
        )
        for _ in range(count)
    ] + [(9, 9, 9.0, 55.0)]


def is_number(score):
    return score is not None and score == score


@pytest.mark.parametrize('seed', range(8))
def test_pareto_is_what_no_entry_beats(seed):
    rows = random_rows(random.Random(seed), 40)
    table = make_table(rows)
    scored = [i for i, row in enumerate(rows) if is_number(row[3])]
    expected = set()
    for i in scored:
        macs, _, _, score = rows[i]
        beaten = any(
            rows[j][0] <= macs
            and rows[j][3] >= score
            and (rows[j][0] < macs or rows[j][3] > score)
            for j in scored
        )
        if not beaten:
            expected.add(table.entries[i].subnet)
    front = table.pareto
    assert {entry.subnet for entry in front} == expected
    assert len(front) == len(expected)
    costs = [entry.macs for entry in front]
    assert costs == sorted(costs)


@pytest.mark.parametrize('seed', range(8))
def test_look_up_equals_brute_force(seed):
    rng = random.Random(seed)
    rows = random_rows(rng, 40)
    table = make_table(rows)
    names = ('macs', 'params', 'latency_ms')
    for chosen in itertools.product([True, False], repeat=3):
        budgets = {
            name: rng.uniform(0.5, 10.0)
            for name, use in zip(names, chosen)
            if use
        }
        within = [
            row
            for row in rows
            if is_number(row[3])
            and all(
                row[names.index(name)] is not None
                and row[names.index(name)] <= budget
                for name, budget in budgets.items()
            )
        ]
        if not within:
            with pytest.raises(ConfigError, match='no subnet is within'):
                table.best(**budgets)
            continue
        found = table.best(**budgets)
        top = max(row[3] for row in within)
        fewest = min(row[0] for row in within if row[3] == top)
        assert table.score(found) == top
        assert found.macs == fewest
        if set(budgets) <= {'macs'}:
            assert found in table.pareto


def test_a_budget_may_be_exactly_met():
    table = make_table([(100, 10, None, 50.0), (200, 20, None, 60.0)])
    assert table.best(macs=100).macs == 100
    assert table.best(macs=199.9).macs == 100
    assert table.best(macs=200).macs == 200
    assert table.best(params=19).macs == 100


def test_equal_macs_keep_the_better_one_and_twins_stay():
    table = make_table(
        [
            (100, 3, None, 60.0),
            (100, 2, None, 60.0),
            (100, 1, None, 59.0),
            (200, 1, None, 60.0),
        ]
    )
    assert [entry.params for entry in table.pareto] == [3, 2]
    assert table.best(macs=150).params == 2  # the cheaper twin
    assert table.best(params=1).macs == 200  # not on the front of MACs


@pytest.mark.parametrize(
    'budgets, message',
    [
        (
            dict(macs=99),
            'no subnet is within macs=99: the least is macs=1,000 of 1.0x-223',
        ),
        (dict(latency_ms=1.0), 'the table has no latency_ms: give a budget'),
        (dict(macs=0), 'budget macs=0: use a positive number'),
        (dict(params=math.nan), 'budget params=nan: use a positive number'),
        (dict(params='1M'), "budget params='1M': use a positive number"),
    ],
)
def test_budgets_that_cannot_be_met(budgets, message):
    table = make_table(
        [(2000, 30, None, 60.0), (1000, 40, None, 50.0), (1, 1, None, None)]
    )
    with pytest.raises(ConfigError) as error:
        table.best(**budgets)
    assert str(error.value).startswith(message)
    assert '\n' not in str(error.value)


def test_budgets_met_only_one_by_one():
    table = make_table([(1000, 2, None, 60.0), (2000, 1, None, 50.0)])
    with pytest.raises(ConfigError) as error:
        table.best(macs=1500, params=1)
    assert str(error.value) == (
        'no subnet is within macs=1,500 and params=1: the least is '
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
    with pytest.raises(ConfigError, match="'c': use a or b"):
        table.ranked_by('c')


def test_another_ranking_keeps_the_rest():
    entry = TableEntry(Subnet(0.5, 128, 3), 1, 1, {'acc/top1': 0.5, 'b': 9.0})
    full = Subnet(1.0, 224, 8)
    table = QueryTable([entry], 'b', 'action', full, 50, views=30)
    again = table.ranked_by('acc/top1')
    assert (again.metric, again.task, again.full) == (
        *('acc/top1', 'action', full),
    )
    assert (again.num_images, again.views) == (50, 30)


def test_a_subnet_comes_once():
    entry = TableEntry(Subnet(0.5, 128), 1, 1, {'a': 1.0})
    with pytest.raises(ConfigError, match='0.5x-128 is in the table twice'):
        QueryTable([entry, entry], 'a', 'detection', FULL)
