"""Tables in a terminal, by tables made by hand."""

import pytest

from mutualnet_mm import Subnet
from mutualnet_mm.query_table import QueryTable, TableEntry
from mutualnet_mm.visualization import print_table

METRICS = {
    'box AP': ('coco/bbox_mAP', '.3f'),
    'mask AP': ('coco/segm_mAP', '.3f'),
}


@pytest.fixture
def printed(capsys):
    def printed(entries, *settings):
        full = Subnet(1.0, 32)
        table = QueryTable(entries, 'coco/bbox_mAP', 'detection', full)
        print_table(table, *settings)
        return capsys.readouterr().out

    return printed


def rows(text):
    lines = [line for line in text.splitlines() if '│' in line]
    return [[c.strip() for c in line.split('│')[1:-1]] for line in lines]


def entry(width, score, **metrics):
    cost = round(width**2 * 10**6)
    return TableEntry(
        Subnet(width, 32), cost, cost // 9, {'coco/bbox_mAP': score, **metrics}
    )


def test_subnets_without_a_metric(printed):
    """NaN, as where nothing was detected, or nothing at all."""
    found = [{'coco/bbox_mAP': 0.5}, {'coco/bbox_mAP': None}, {}]
    entries = [
        TableEntry(Subnet((i + 1) / 4, 32), 100, 10, metrics)
        for i, metrics in enumerate(found)
    ]
    assert [row[-2:] for row in rows(printed(entries, METRICS))] == [
        ['0.500', '-'],
        ['-', '-'],
        ['-', '-'],
    ]


def test_the_best_are_marked(printed):
    entries = [entry(1.0, 0.61234), entry(0.5, 0.7), entry(0.25, 0.2)]
    assert rows(printed(entries)) == [
        ['1.0x-32', '1.00', '111,111', '0.6123'],
        ['* 0.5x-32', '0.25', '27,777', '0.7'],
        ['* 0.25x-32', '0.06', '6,944', '0.2'],
    ]


def test_of_many_the_best_are_shown(printed):
    scores = [1 - 0.05 * i if i % 2 else 0.01 for i in range(20)]
    entries = [entry(1 - i / 25, score) for i, score in enumerate(scores)]
    text = printed(entries, None, 'a title')
    assert 'a title' in text and 'the best of their cost, of 20' in text
    kept = [str(e.subnet) for i, e in enumerate(entries) if i % 2]
    assert [row[0] for row in rows(text)] == kept


def test_intervals(capsys):
    """Of a share of right answers on 1,000 images: Wilson's."""
    one = TableEntry(Subnet(1.0, 32), 4, 2, {'accuracy/top1': 80.0})
    table = QueryTable(
        [one], 'accuracy/top1', 'classification', one.subnet, num_images=1000
    )
    print_table(table)
    (row,) = rows(capsys.readouterr().out)
    assert row == ['* 1.0x-32', '0.00', '2', '80', '77.41 to 82.36']


def test_it_is_said_which_of_several_metrics_an_interval_is_of(capsys):
    full = Subnet(1.0, 32)
    metrics = {'accuracy/top5': 90.0, 'accuracy/top1': 80.0}
    table = QueryTable(
        [TableEntry(full, 4, 2, metrics)],
        *('accuracy/top1', 'classification', full),
        num_images=1000,
    )
    names = {f'top {k}': (f'accuracy/top{k}', '.1f') for k in (5, 1)}
    print_table(table, names)
    text = capsys.readouterr().out
    assert '95 % of top 1' in text and '77.4 to 82.4' in text
