"""From answers of subnets, image by image, to the cascades of a table."""

import numpy as np
import pytest
import torch
from made_up_answers import made_up

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.query_table import TableEntry
from mutualnet_mm.query_table.answers import Answers, cascades_of
from mutualnet_mm.query_table.cascades import find_cascades

METRICS = {'accuracy/top1': 100.0, 'acc/top1': 1.0}


@pytest.fixture(params=list(METRICS))
def parts(request):
    """Entries, their answers, and what these were made of."""
    macs, right, sure = made_up(1)
    truth = torch.randint(0, 9, (len(right[0]),), dtype=torch.int32)
    entries, answers = [], {}
    for i, cost in enumerate(macs):
        subnet = Subnet(0.5 + i / 10, 32)
        share = sum(right[i]) / len(truth)
        metrics = {'other': 1.0, request.param: share * METRICS[request.param]}
        entries.append(TableEntry(subnet, cost, 1, metrics))
        answers[str(subnet)] = Answers(
            truth, torch.tensor(right[i]), torch.tensor(sure[i])
        )
    return entries, answers, (macs, right, sure), request.param


def test_cascades_have_names_and_units(parts):
    entries, answers, (macs, right, sure), metric = parts
    found = cascades_of(entries, answers)
    sure = np.array(sure, dtype=np.float32)
    expected = find_cascades(macs, np.array(right), sure)
    assert len(found) == len(expected) > 0
    for cascade, (rule, share, accuracy) in zip(found, expected):
        assert cascade.stages == (
            entries[rule.first].subnet,
            entries[rule.second].subnet,
        )
        assert cascade.threshold == rule.threshold
        assert cascade.macs == macs[rule.first] + macs[rule.second]
        assert cascade.mean_macs == pytest.approx(
            macs[rule.first] + share * macs[rule.second]
        )
        assert cascade.accuracy == pytest.approx(accuracy * METRICS[metric])
        assert cascade.metric == metric
        plain = (cascade.threshold, cascade.mean_macs, cascade.accuracy)
        assert {type(value) for value in plain} == {float}
        assert type(cascade.macs) is int


def test_subnets_without_answers_or_metric_are_left_out(parts):
    entries, answers, _, metric = parts
    first, second = (str(entry.subnet) for entry in entries[:2])
    del answers[first]
    entries[1].metrics[metric] = None
    named = {str(s) for c in cascades_of(entries, answers) for s in c.stages}
    assert named and not named & {first, second}


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda e, a, m: a.clear(), 'no answers were kept'),
        (
            lambda e, a, m: [entry.metrics.pop(m) for entry in e],
            'test_evaluator gives no top-1 accuracy',
        ),
        (
            lambda e, a, m: e[3].metrics.update({m: e[3].metrics[m] * 0.9}),
            'top1 of 0.8x-32 is .*, but its most probable class is right for',
        ),
        (
            lambda e, a, m: a.update(
                {
                    '0.7x-32': Answers(
                        a['0.7x-32'].truth.flip(0),
                        a['0.7x-32'].right,
                        a['0.7x-32'].confidence,
                    )
                }
            ),
            'images of 0.7x-32 came in another order than those of 0.5x-32',
        ),
    ],
)
def test_answers_that_do_not_fit(parts, change, message):
    entries, answers, _, metric = parts
    change(entries, answers, metric)
    with pytest.raises(UsageError, match=message):
        cascades_of(entries, answers)


@pytest.mark.parametrize(
    'name, value',
    [
        ('truth', torch.zeros(3)),
        ('right', torch.zeros(4, dtype=torch.bool)),
        ('confidence', [0.5] * 3),
    ],
)
def test_what_are_no_answers(name, value):
    good = dict(
        truth=torch.zeros(3, dtype=torch.int32),
        right=torch.zeros(3, dtype=torch.bool),
        confidence=torch.zeros(3),
    )
    Answers(**good)
    with pytest.raises(UsageError, match='is no list of answers'):
        Answers(**dict(good, **{name: value}))
