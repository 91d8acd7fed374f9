"""The best cascade for a mean cost, as a search over all finds it."""

import random

import pytest

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.query_table import (
    Cascade,
    QueryTable,
    TableEntry,
    best_cascade,
    cascade_front,
    describe_cascades,
    why_no_cascades,
)

TOP1 = 'accuracy/top1'


def made_up(seed, metric=TOP1, cascades=True):
    """Subnets and cascades with ties; one subnet has no score."""
    rng = random.Random(seed)
    entries = [
        TableEntry(
            Subnet(width / 10, side),
            rng.randint(1, 30) * 1000,
            1,
            {TOP1: float(rng.randint(1, 20)), 'sums': 1.0},
        )
        for width in range(3, 11)
        for side in (32, 24)
    ]
    entries.append(TableEntry(Subnet(0.25, 32), 10, 1, {}))
    found = []
    for _ in range(20):
        first, second = rng.sample(entries[:-1], 2)
        share = rng.randint(1, 9) / 10
        found.append(
            Cascade(
                (first.subnet, second.subnet),
                rng.random(),
                first.macs + share * second.macs,
                first.macs + second.macs,
                TOP1,
                float(rng.randint(5, 25)),
            )
        )
    return QueryTable(
        entries,
        metric,
        'classification',
        Subnet(1.0, 32),
        cascades=found if cascades else None,
    )


def choices(table):
    """Mean cost, worst case and score of all that can be chosen."""
    for entry in table.entries[:-1]:
        yield entry, entry.macs, entry.macs, entry.metrics[TOP1]
    for cascade in table.cascades:
        yield cascade, cascade.mean_macs, cascade.macs, cascade.accuracy


@pytest.mark.parametrize('seed', range(3))
def test_by_brute_force(seed):
    table, rng = made_up(seed), random.Random(seed)
    kinds, refused = set(), 0
    for _ in range(300):
        mean = rng.uniform(0, 40_000)
        worst = rng.choice([None, rng.uniform(0, 60_000)])
        within = [
            (score, -m, choice)
            for choice, m, w, score in choices(table)
            if m <= mean and (worst is None or w <= worst)
        ]
        if not within:
            refused += 1
            with pytest.raises(UsageError, match='the least is mean_macs='):
                best_cascade(table, mean, worst)
            continue
        found = best_cascade(table, mean, worst)
        kinds.add(type(found))
        best = max(within, key=lambda item: item[:2])
        assert (table.score(found), -found.mean_macs) == best[:2]
        assert found in [item[2] for item in within]
    assert kinds == {TableEntry, Cascade} and refused


@pytest.mark.parametrize('seed', range(3))
def test_front_by_brute_force(seed):
    table = made_up(seed)
    points = list(choices(table))
    expected = [
        (m, s)
        for _, m, _, s in points
        if not any(
            a <= m and b >= s and (a < m or b > s) for _, a, _, b in points
        )
    ]
    found = [(c.mean_macs, table.score(c)) for c in cascade_front(table)]
    assert found == sorted(expected)


@pytest.mark.parametrize(
    'table, message',
    [
        (made_up(0, cascades=False), 'the table has no cascades: build it'),
        (
            made_up(0, metric='sums'),
            'ranked by sums, its cascades by accuracy/top1: build it with '
            '--metric accuracy/top1',
        ),
        (
            QueryTable(
                [TableEntry(Subnet(1.0, 64), 9, 9, {'coco/bbox_mAP': 0.5})],
                'coco/bbox_mAP',
                'detection',
                Subnet(1.0, 64),
            ),
            'cascades are for the top-1 .* this table .detection. has coco',
        ),
    ],
)
def test_tables_without_cascades(table, message):
    with pytest.raises(UsageError, match=message) as caught:
        best_cascade(table, 1e9)
    assert str(caught.value) == why_no_cascades(table)
    assert describe_cascades(table) == str(caught.value)
    assert cascade_front(table) == []


@pytest.mark.parametrize('budget', [0, -1, float('nan'), 'many', True])
def test_what_is_no_budget(budget):
    with pytest.raises(UsageError, match='budget mean_macs=.*positive'):
        best_cascade(made_up(0), budget)


def test_in_words():
    small, large = Subnet(0.25, 128), Subnet(1.0, 224)
    entries = [
        TableEntry(small, 20_000_000, 1, {TOP1: 55.0}),
        TableEntry(large, 569_000_000, 1, {TOP1: 72.4}),
    ]
    parts = entries, TOP1, 'classification', large
    cascade = Cascade((small, large), 0.8264, 1.46e8, 589_000_000, TOP1, 68.04)
    assert describe_cascades(QueryTable(*parts, cascades=[cascade])) == (
        'mean 146 M: 68.04 by 0.25x-128, below 0.826 1.0x-224 (589 M in the '
        'worst case), 55 by 0.25x-128 alone'
    )
    none = QueryTable(*parts, cascades=[])
    assert describe_cascades(none) == (
        'no cascade is better than a single subnet'
    )
    assert cascade_front(none) == list(none.pareto)
    many = [
        Cascade(
            (small, large), 0.5, 3e7 + i * 1e6, 589_000_000, TOP1, 60 + i / 9
        )
        for i in range(50)
    ]
    told = describe_cascades(QueryTable(*parts, cascades=many)).split('; ')
    assert [text.split(':')[0] for text in told] == [
        f'mean {x} M' for x in ('30.0', '40.0', '50.0', '59.0', '69.0', '79.0')
    ]
