import pytest

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.query_table import QueryTable, TableEntry
from mutualnet_mm.query_table.entry import Latency
from mutualnet_mm.visualization.compared import compared_tables


def make_table(measured=(0, 1, 2), device='cpu', metric='top1'):
    """Of three ranked subnets and one that is not."""
    entries = []
    for i, score in enumerate((50.0, 60.0, 70.0, None)):
        latency = {device: Latency(3.0 - i / 9, 4.0)} if i in measured else {}
        entries.append(
            TableEntry(
                Subnet(0.25 * (i + 1), 32),
                (i + 1) * 100,
                (i + 1) * 10,
                {metric: score},
                latency,
            )
        )
    return QueryTable(entries, metric, 'classification', Subnet(1.0, 32))


@pytest.mark.parametrize(
    'cost, label, costs, best',
    [
        ('macs', 'multiply-accumulates', [100, 200, 300, 400], 3),
        ('params', 'parameters', [10, 20, 30, 40], 3),
        # The best one is the fastest here.
        ('latency_ms', 'median latency in ms (cpu)', [3, 26 / 9, 25 / 9], 1),
    ],
)
def test_costs(cost, label, costs, best):
    tables, axis = compared_tables({'net': make_table()}, cost=cost)
    assert axis.label == label and axis.notes == ()
    entries = tables['net'].entries
    found = [axis.cost_of(entry) for entry in entries][: len(costs)]
    assert found == pytest.approx(costs)
    assert len(axis.front(tables['net'])) == best


@pytest.mark.parametrize(
    'cost, label, costs, best',
    [
        ('p90_ms', '90th percentile of the latency in ms', (9, 8, 7), 1),
        ('energy_mj', 'energy of an image in mJ', (1, 2, 3), 3),
        (
            'images_per_second',
            'images per second at the best batch size',
            (90, 40, 50),
            2,
        ),
    ],
)
def test_what_else_is_measured(cost, label, costs, best):
    """Of the third subnet, which is the best one; more images are better."""
    table = make_table()
    figures = zip((9, 8, 7), (90, 40, 50), (1, 2, 3))
    latencies = {
        entry.subnet: Latency(1.0, p90, rate, 4, energy)
        for entry, (p90, rate, energy) in zip(table.entries, figures)
    }
    table = table.with_latencies('npu', latencies)
    tables, axis = compared_tables({'a': table}, cost=cost, device='npu')
    assert axis.label == f'{label} (npu)' and axis.notes == ()
    found = [axis.cost_of(entry) for entry in table.entries]
    assert found == [*costs, None]
    assert len(axis.front(tables['a'])) == best
    if cost != 'p90_ms':
        with pytest.raises(UsageError, match=f'b: the table has no {cost}: '):
            compared_tables({'a': table, 'b': make_table()}, cost=cost)


def test_what_was_not_measured_is_counted():
    """Of those that are ranked; the others are in no figure."""
    tables = {'net': make_table((0,))}
    _, axis = compared_tables(tables, cost='latency_ms')
    assert axis.notes == ('2 of 3 subnets were not measured',)
    tables = {
        'a': make_table((0, 2)),
        'b': make_table(),
        'c': make_table((1,)),
    }
    _, axis = compared_tables(tables, cost='latency_ms')
    assert axis.notes == (
        'a: 1 of 3 subnets were not measured',
        'c: 2 of 3 subnets were not measured',
    )


@pytest.mark.parametrize(
    'tables, settings, message',
    [
        ({}, {}, 'no table was given'),
        ({'a': make_table()}, dict(cost='time'), "cost 'time': use macs or"),
        (
            {'a': make_table(), 'b': make_table(())},
            dict(cost='latency_ms'),
            'b: the table has no latency_ms: measure it with mutualnet',
        ),
        (
            {'a': make_table(), 'b': make_table(device='gpu')},
            dict(cost='latency_ms'),
            r'different devices \(cpu and gpu\) cannot be compared',
        ),
        (
            {'a': make_table(), 'b': make_table(device='gpu')},
            dict(cost='latency_ms', device='gpu'),
            "a: device='gpu': name one that latencies were measured on: 'cpu'",
        ),
        (
            {'a': make_table((3,))},
            dict(cost='latency_ms'),
            'a: no subnet has both latency_ms and top1',
        ),
        (
            {'a': make_table(), 'b': make_table(metric='mAP')},
            {},
            'ranked by mAP and top1: name one metric',
        ),
    ],
)
def test_what_cannot_be_compared(tables, settings, message):
    with pytest.raises(UsageError, match=message):
        compared_tables(tables, **settings)


def test_one_of_two_devices():
    table = make_table().with_latencies(
        'gpu', {Subnet(0.5, 32): Latency(1, 2)}
    )
    with pytest.raises(UsageError, match='device=None: name one'):
        compared_tables({'net': table}, cost='latency_ms')
    tables, axis = compared_tables(
        {'net': table}, cost='latency_ms', device='gpu'
    )
    assert axis.notes == ('2 of 3 subnets were not measured',)
    assert [str(e.subnet) for e in axis.front(tables['net'])] == ['0.5x-32']
