"""A search over widths of stages, against all of them by brute force."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import search_widths
from mutualnet_mm.query_table import QueryTable, TableEntry
from mutualnet_mm.subnet import SubnetSpace
from mutualnet_mm.widths import each_width, stage_widths

STEP, WIDTHS = 0.25, (0.25, 0.5, 0.75, 1.0)
SPACE = dict(width_range=(0.25, 1.0), resolution=(32,), stages=3)


def cost(subnet):
    widths = each_width(subnet.width)
    widths = widths * 3 if len(widths) == 1 else widths
    return round(sum(n * w**2 for n, w in zip((9, 3, 1), widths)) * 1000)


def score(subnet):
    """The last stage gives the most for its cost, the first one the least."""
    widths = each_width(subnet.width)
    widths = widths * 3 if len(widths) == 1 else widths
    return sum(n * w for n, w in zip((1, 2, 4), widths))


class Tables:
    """Stands for build_table: adds to the table what it is asked for."""

    def __init__(self):
        self.entries, self.asked, self.most = {}, [], 10**9
        self.params = score  # differs where the network does

    def __call__(self, cfg, checkpoint, out, step, subnets, *_, shard):
        assert (checkpoint, out, step, shard) == ('a.pth', 'out', STEP, '1/1')
        new = [s for s in subnets if s not in self.entries]
        self.asked.append(new)
        for subnet in new:
            if len(self.entries) == self.most:
                raise KeyboardInterrupt
            self.entries[subnet] = TableEntry(
                subnet, cost(subnet), 1, {'acc': score(subnet)}
            )
        return QueryTable(
            list(self.entries.values()), 'acc', 'task', Subnet(1.0, 32)
        )


@pytest.fixture
def tables(monkeypatch):
    made = Tables()
    # The package holds the function by the name of its module.
    names = search_widths.__globals__
    monkeypatch.setitem(names, 'build_table', made)
    monkeypatch.setitem(
        names,
        'build_model',
        lambda cfg: SimpleNamespace(space=SubnetSpace(**cfg.model.mutual)),
    )
    monkeypatch.setitem(names, 'count_macs', lambda _, subnet: cost(subnet))
    monkeypatch.setitem(names, 'count_params', lambda _, s: made.params(s))
    return made


@pytest.fixture
def search():
    cfg = Config(dict(model=dict(mutual=SPACE)))

    def run(number, **settings):
        return search_widths(cfg, 'a.pth', 'out', number, STEP, **settings)

    return run


def every_subnet():
    return [
        Subnet(stage_widths(widths), 32)
        for widths in itertools.product(WIDTHS, repeat=3)
    ]


def front(subnets):
    """All that no other one beats at its cost or less, by comparing pairs."""
    return {
        a
        for a in subnets
        if not any(
            (cost(b) <= cost(a) and score(b) > score(a))
            or (cost(b) < cost(a) and score(b) >= score(a))
            for b in subnets
        )
    }


def test_of_all_it_finds_the_best(tables, search):
    """Until nothing new is beside the best; far fewer than all are tested."""
    table = search(10**6)
    expected = {(cost(s), score(s)) for s in front(every_subnet())}
    assert {(e.macs, table.score(e)) for e in table.pareto} == expected
    assert len(table.entries) < len(every_subnet())


def test_some_are_better_than_one_width_for_all(tables, search):
    """A third of them holds most of what is the best of all."""
    table = search(20)
    assert len(table.entries) == 4 + 20
    best = {e.subnet for e in table.pareto}
    assert len(best & front(every_subnet())) >= 0.6 * len(
        front(every_subnet())
    )
    drawn = [s for new in tables.asked[1:] for s in new]
    assert [len(new) for new in tables.asked] == [4, 8, 8, 4]
    assert all(min(each_width(s.width)) >= 0.25 for s in drawn)
    assert all(set(each_width(s.width)) <= set(WIDTHS) for s in drawn)


def test_interrupted_it_goes_on_alike(tables, search, monkeypatch):
    expected = [str(e.subnet) for e in search(20).entries]
    tables.__init__()
    tables.most = 12  # a group is lost, or what its table holds is kept
    with pytest.raises(KeyboardInterrupt):
        search(20)
    tables.most = 10**9
    assert [str(e.subnet) for e in search(20).entries] == expected
    asked = len(tables.asked)
    search(20)  # finished: the grid is asked for, and is there
    assert tables.asked[asked:] == [[]]


def test_what_rounds_to_the_same_network_is_tested_once(
    tables, search, monkeypatch
):
    """As where the first stage has few channels: its width says nothing."""

    def channels(subnet):
        widths = each_width(subnet.width)
        first, *others = widths * 3 if len(widths) == 1 else widths
        return (first > 0.5, *others)

    tables.params = channels
    names = search_widths.__globals__
    monkeypatch.setitem(names, 'count_macs', lambda _, subnet: 1)
    table = search(10**6)
    found = [channels(entry.subnet) for entry in table.entries]
    grid = len(tables.asked[0])  # which is tested as it is
    assert len(set(found[grid:])) == len(found[grid:])
    assert not set(found[:grid]) & set(found[grid:])


def test_a_start_of_ones_own(tables, search):
    search(1, subnets=['1.0x-32', '0.25x-32'])
    assert [str(s) for s in tables.asked[0]] == ['1.0x-32', '0.25x-32']


def test_networks_of_one_width(tables):
    cfg = Config(dict(model=dict(mutual=dict(SPACE, stages=1))))
    with pytest.raises(UsageError, match='nothing to search: .*mutual.stages'):
        search_widths(cfg, 'a.pth', 'out', 3, STEP)
    assert tables.asked == []


@pytest.mark.parametrize('number', [0, -1, 1.5, None])
def test_numbers_that_are_none(number, search, tables):
    with pytest.raises(UsageError, match='number='):
        search(number)


def test_of_a_network(
    build_classifier, classifier_config, make_config, tmp_path
):
    """Sizes and widths that are drawn are calibrated and tested."""
    space = dict(resolution=(32, 16), stages=4)
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=build_classifier(space).state_dict()), path)
    cfg = make_config(model=classifier_config(space))
    start = ['1.0x-32', '0.5x-16']
    found = search_widths(cfg, str(path), tmp_path, 2, 0.25, start)
    names = [str(entry.subnet) for entry in found.entries]
    assert names[0] == '1.0x-32' and len(names) == 4
    assert sum(name.count('-') == 4 for name in names) == 2
    assert all(entry.macs > 0 for entry in found.entries)
    assert (tmp_path / 'adaptive.pth').is_file()
