"""Scores on drawn test sets: intervals, pairs, and the cheapest of equals."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.query_table import (
    QueryTable,
    TableEntry,
    load_table,
    save_csv,
    save_table,
    wilson_interval,
)
from mutualnet_mm.query_table.answers import Answers, with_resampled_top1
from mutualnet_mm.query_table.resampling import (
    NUMBER,
    drawn_counts,
    is_shown_better,
    values_from_text,
    values_to_text,
)

FULL = Subnet(1.0, 64)
METRIC = 'coco/bbox_mAP'


def single(values):
    return tuple(np.float32(values).tolist())


def made_up(rng, number, metric=METRIC, resampled=True):
    """Entries whose drawn scores vary together, as on the same images."""
    common = rng.normal(0, 0.05, NUMBER)
    entries = []
    for i in range(number):
        score = float(rng.choice([0.3, 0.31, 0.33, 0.4]))
        own = score + common + rng.normal(0, 0.01, NUMBER)
        entries.append(
            TableEntry(
                Subnet(1.0, 64 - i),
                macs=int(rng.integers(1, 9)),
                params=int(rng.integers(1, 9)),
                metrics={metric: score},
                resampled={metric: single(own)} if resampled else {},
            )
        )
    return entries


def table_of(entries, metric=METRIC, **settings):
    return QueryTable(entries, metric, 'detection', FULL, **settings)


def test_intervals_are_percentiles():
    (entry,) = made_up(np.random.default_rng(0), 1)
    table = table_of([entry])
    values = np.sort(entry.resampled[METRIC])
    low, high = table.interval(entry)
    assert np.mean(values < low) == pytest.approx(0.025, abs=1 / NUMBER)
    assert np.mean(values > high) == pytest.approx(0.025, abs=1 / NUMBER)
    # Nothing is right on any of them: they do not say how far that is off.
    empty = replace(entry, resampled={METRIC: (0.0,) * NUMBER})
    assert table_of([empty]).interval(empty) is None
    other = table_of([replace(entry, resampled={})])
    assert other.interval(other.entries[0]) is None


@pytest.mark.parametrize('seed', range(12))
def test_the_cheapest_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    entries = made_up(rng, 6)
    table = table_of(entries)
    for macs, params in itertools.product((None, 3, 6, 9), repeat=2):
        if macs is None and params is None:
            continue
        within = [
            e
            for e in entries
            if e.macs <= (macs or 99) and e.params <= (params or 99)
        ]
        if not within:
            continue
        best = table.best(macs=macs, params=params)
        kept = []
        for entry in within:
            gaps = [
                a - b
                for a, b in zip(
                    best.resampled[METRIC], entry.resampled[METRIC]
                )
            ]
            # Higher on more than 97.5 % of the drawn sets.
            if sum(gap <= 0 for gap in gaps) > 0.025 * (NUMBER - 1):
                kept.append(entry)
        assert best in kept
        names = ['macs', 'params'] if macs else ['params', 'macs']
        cost = min([getattr(e, name) for name in names] for e in kept)
        found = table.best(macs=macs, params=params, prefer='cheapest')
        assert [getattr(found, name) for name in names] == cost
        assert found in kept
        assert table.best(macs=macs, params=params, prefer='best') == best


def test_pairs_tell_more_than_intervals():
    """Scores that rise and fall together differ, though intervals overlap."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.1, NUMBER)
    entries = [
        TableEntry(
            Subnet(1.0, 64 - i),
            macs,
            1,
            {METRIC: score},
            resampled={METRIC: single(score + common)},
        )
        for i, (macs, score) in enumerate([(9, 0.5), (1, 0.45)])
    ]
    table = table_of(entries)
    (low, _), (_, high) = map(table.interval, entries)
    assert low < 0.45 and high > 0.5
    assert table.best(macs=9, prefer='cheapest').macs == 9
    # Without the pairs, the intervals count.
    entries[0] = replace(entries[0], resampled={})
    assert table_of(entries).best(macs=9, prefer='cheapest').macs == 1
    entries[1] = replace(entries[1], resampled={})
    with pytest.raises(UsageError, match='how far .*mAP.* may be off.*build'):
        table_of(entries).best(macs=9, prefer='cheapest')
    assert table_of(entries).best(macs=1, prefer='cheapest').macs == 1
    with pytest.raises(UsageError, match="prefer='small': use 'best' or"):
        table.best(macs=9, prefer='small')


def test_accuracies_have_wilson_without_pairs():
    rng = np.random.default_rng(0)
    entries = made_up(rng, 2, 'acc/top1', resampled=False)
    entries[0] = replace(entries[0], macs=9, metrics={'acc/top1': 0.40})
    entries[1] = replace(entries[1], macs=1, metrics={'acc/top1': 0.33})
    for number, expected in ((100, 1), (1000, 9)):
        table = table_of(entries, 'acc/top1', num_images=number)
        assert (wilson_interval(0.33, number)[1] > 0.4) == (expected == 1)
        assert table.best(macs=9, prefer='cheapest').macs == expected


@pytest.mark.parametrize(
    'metric, scale', [('accuracy/top1', 100), ('acc/top1', 1)]
)
def test_answers_are_drawn_as_numpy_draws_them(metric, scale):
    rng = np.random.default_rng(1)
    truth = torch.from_numpy(rng.integers(0, 3, 50)).int()
    entries, answers = [], {}
    for i in range(3):
        right = torch.from_numpy(rng.random(50) < 0.6)
        subnet = Subnet(1.0, 64 - i)
        score = scale * right.double().mean().item()
        entries.append(TableEntry(subnet, 9 - i, 1, {metric: score}))
        answers[str(subnet)] = Answers(truth, right, torch.rand(50))
    found = with_resampled_top1(entries, answers)
    draws = np.random.default_rng((0, 50))
    for row in range(NUMBER):
        images = draws.integers(0, 50, 50)
        for entry in found:
            right = answers[str(entry.subnet)].right.numpy()
            value = scale * right[images].mean()
            assert entry.resampled[metric][row] == pytest.approx(value, 1e-5)
    assert is_shown_better((1.0,) * NUMBER, (0.5,) * NUMBER)
    # Answers that are not those of the metric, or of other images.
    entries[0] = replace(entries[0], metrics={metric: 0.0})
    other = replace(answers['1.0x-63'], truth=truth.flip(0))
    found = with_resampled_top1(entries, {**answers, '1.0x-63': other})
    assert [bool(e.resampled) for e in found] == [False, False, True]
    assert with_resampled_top1(entries, {}) == entries


def test_files(tmp_path):
    table = table_of(made_up(np.random.default_rng(0), 3))
    save_table(table, tmp_path / 'table.json')
    again = load_table(tmp_path / 'table.json')
    assert again.entries == table.entries
    content = json.loads((tmp_path / 'table.json').read_text())
    for entry, record in zip(table.entries, content['entries']):
        assert tuple(record['interval']) == table.interval(entry)
    save_csv(table, tmp_path / 'table.csv')
    header, first = (tmp_path / 'table.csv').read_text().splitlines()[:2]
    assert 'resampled' not in header and len(first) < 200
    # A table of before there were any.
    del content['sha256']
    for record in content['entries']:
        del record['resampled']
    (tmp_path / 'table.json').write_text(json.dumps(content))
    old = load_table(tmp_path / 'table.json')
    assert [e.resampled for e in old.entries] == [{}] * 3


@pytest.mark.parametrize(
    'text',
    ['', 'AAAA', 'no base64!', values_to_text((float('nan'),) * NUMBER), 3],
)
def test_damaged_values(text, tmp_path):
    table = table_of(made_up(np.random.default_rng(0), 1))
    save_table(table, tmp_path / 'table.json')
    content = json.loads((tmp_path / 'table.json').read_text())
    content['entries'][0]['resampled'][METRIC] = text
    (tmp_path / 'table.json').write_text(json.dumps(content))
    with pytest.raises(UsageError, match='table.json is damaged: ') as error:
        load_table(tmp_path / 'table.json')
    assert '\n' not in str(error.value)


def test_text_of_values():
    values = single(np.random.default_rng(0).random(NUMBER))
    assert values_from_text(values_to_text(values)) == values
    assert drawn_counts(3).shape == (NUMBER, 3)
