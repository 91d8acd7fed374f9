"""Cascades found by arrays, as loops over images find them."""

import itertools
import math

import numpy as np
import pytest
from made_up_answers import made_up

from mutualnet_mm import Subnet
from mutualnet_mm.query_table import Cascade, cascades
from mutualnet_mm.query_table.cascades import Rule, _budgets, find_cascades


def lesser(a, b):
    """Whether a confidence is below another; NaN is below all."""
    return (-1 if math.isnan(a) else a) < (-1 if math.isnan(b) else b)


def best_of(macs, right, sure, images, mean, worst):
    """Try every pair and every threshold between two confidences."""
    most, found = -1, None
    by_cost = sorted(range(len(macs)), key=lambda s: macs[s])
    for a, b in itertools.product(by_cost, range(len(macs))):
        if macs[a] >= macs[b] or macs[a] + macs[b] > worst:
            continue
        values = sorted(
            {-1 if math.isnan(sure[a][i]) else sure[a][i] for i in images}
        )
        for low, high in zip(values, values[1:]):
            threshold = (low + high) / 2
            unsure = [i for i in images if lesser(sure[a][i], threshold)]
            spent = macs[a] + len(unsure) / len(images) * macs[b]
            if spent > mean + 1e-6:
                break
            count = sum(
                right[b][i] if i in unsure else right[a][i] for i in images
            )
            if count > most:
                most, found = count, Rule(a, b, threshold)
    return found


def by_loops(macs, right, sure):
    number = len(right[0])
    rules = set()
    for mean, worst in _budgets(np.array(macs, dtype=float)):
        rules.add(best_of(macs, right, sure, range(number), mean, worst))
    mixed = [int(i) for i in np.random.default_rng(0).permutation(number)]
    halves = mixed[: number // 2], mixed[number // 2 :]
    points = {s: (macs[s], macs[s], sum(right[s])) for s in range(len(macs))}
    shares = {}
    for rule in filter(None, rules):
        a, b, threshold = rule
        unsure = [i for i in range(number) if lesser(sure[a][i], threshold)]
        mean = macs[a] + len(unsure) / number * macs[b]
        count = 0
        for here, there in (halves, halves[::-1]):
            other = best_of(macs, right, sure, here, mean, macs[a] + macs[b])
            if other is None:
                break
            for i in there:
                on = lesser(sure[other.first][i], other.threshold)
                count += right[other.second if on else other.first][i]
        else:
            points[rule] = mean, macs[a] + macs[b], count
            shares[rule] = len(unsure) / number
    front = []
    for rule, share in shares.items():
        mean, worst, count = points[rule]
        if not any(
            m <= mean and w <= worst and c >= count
            for other, (m, w, c) in points.items()
            if other != rule
        ):
            front.append((mean, rule, share, count / number))
    return sorted(front)


@pytest.mark.parametrize('digits', [6, 1])  # with ties of confidence
@pytest.mark.parametrize('seed', range(4))
def test_as_found_by_loops(seed, digits):
    macs, right, sure = made_up(seed, digits=digits)
    found = find_cascades(macs, np.array(right), np.array(sure))
    expected = by_loops(macs, right, sure)
    assert found or digits == 1
    assert [rule for rule, _, _ in found] == [e[1] for e in expected]
    for (_, share, accuracy), (_, _, counted, told) in zip(found, expected):
        assert share == pytest.approx(counted)
        assert accuracy == pytest.approx(told)


def test_what_is_no_number_goes_on():
    macs, right, sure = made_up(1)
    for values in sure:
        values[::7] = [math.nan] * len(values[::7])
    found = find_cascades(macs, np.array(right), np.array(sure))
    expected = by_loops(macs, right, sure)
    assert [rule for rule, _, _ in found] == [e[1] for e in expected]
    assert all(0 < rule.threshold < 1 for rule, _, _ in found)


@pytest.mark.parametrize(
    'macs, right, sure',
    [
        ([5], [[True, False] * 9], [[0.5, 0.9] * 9]),  # one subnet
        ([5, 9], [[True], [True]], [[0.5], [0.9]]),  # one image
        ([5, 9], [[True] * 18] * 2, [[0.5] * 18] * 2),  # all as sure
        ([5, 5], [[True, False] * 9] * 2, [[0.5, 0.9] * 9] * 2),  # one cost
        # The larger one is wrong where the smaller one is unsure.
        ([5, 9], [[True] * 18, [False] * 18], [[0.5, 0.9] * 9] * 2),
    ],
)
def test_none_is_found(macs, right, sure):
    assert find_cascades(macs, np.array(right), np.array(sure)) == []


def test_accuracy_is_not_that_of_the_images_chosen_on(monkeypatch):
    """Where all subnets guess, the best pair and threshold still guess."""
    told, chosen_on, fresh = [], [], []
    # Else those that did well by chance are left.
    keep_all = lambda points: np.ones(len(points), dtype=bool)  # noqa: E731
    monkeypatch.setattr(cascades, '_front', keep_all)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        right = rng.random((12, 20_000)) < 0.5
        sure = rng.random((12, 20_000))
        macs = range(100, 1300, 100)
        for rule, _, accuracy in find_cascades(
            macs, right[:, :200], sure[:, :200]
        ):
            on = sure[rule.first] < rule.threshold
            answers = np.where(on, right[rule.second], right[rule.first])
            told.append(accuracy)
            chosen_on.append(answers[:200].mean())
            fresh.append(answers[200:].mean())
    assert np.mean(fresh) == pytest.approx(0.5, abs=0.002)
    assert np.mean(chosen_on) > 0.53
    assert 0.47 < np.mean(told) < 0.505


def test_a_cascade_in_words():
    stages = Subnet(0.25, 128), Subnet(1.0, 224)
    cascade = Cascade(stages, 0.82649, 1.5e8, 6e8, 'accuracy/top1', 72.1)
    assert str(cascade) == '0.25x-128, below 0.826 1.0x-224'
    assert len({cascade, cascade}) == 1
