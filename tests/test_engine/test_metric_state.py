"""Metrics with state of their own, shown the predictions of two subnets."""

from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator

from mutualnet_mm import UsageError
from mutualnet_mm.engine.metric_state import MetricState


class Counting(BaseMetric):
    """Counts in every way that there is, and in its results."""

    def __init__(self):
        super().__init__()
        self.truth = [object()] * 3
        self.number, self.seen, self.by_value = 0, [], {}
        self.matrix, self.sums = np.zeros(2), torch.zeros(2)
        self.nested = {'a': np.zeros(1), 'b': [torch.zeros(1), ({}, 0)]}
        self.pairs, self.recent = [('x', None)], deque([(1,)], maxlen=2)
        self.counted_late = torch.zeros(1)
        self.made = None

    def process(self, data_batch, data_samples):
        for value in data_samples:
            self.results.append(value)
            self.number += 1
            self.seen.append(value)
            self.by_value[value] = self.by_value.get(value, 0) + 1
            self.matrix[value % 2] += value
            self.sums += value
            self.last = value
            self.nested['a'] += value
            self.nested['b'][0] += value
            self.nested['b'][1][0][value] = 1
            self.pairs = [('y', None)]
            self.recent.append((value,))
            self.made = self.made or SimpleNamespace(total=0)
            self.made.total += value
            if self.number > 2:
                self.counted_late += value

    def compute_metrics(self, results):
        return dict(
            results=results,
            number=self.number,
            seen=list(self.seen),
            by_value=dict(self.by_value),
            matrix=self.matrix.tolist(),
            sums=self.sums.tolist(),
            last=self.last,
            made=self.made.total,
            nested=str(self.nested),
            late=(self.pairs, list(self.recent), self.counted_late.item()),
        )


def alone(batches):
    evaluator = Evaluator(Counting())
    for batch in batches:
        evaluator.process(batch)
    return evaluator.evaluate(sum(map(len, batches)))


@pytest.mark.parametrize('number', [2, 3])
def test_each_subnet_has_its_own(number):
    evaluator = Evaluator(Counting())
    truth = evaluator.metrics[0].truth
    runs = [[[i + 1, i + 2], [i + 5]] for i in range(number)]
    states = [MetricState(evaluator.metrics) for _ in runs]
    for step in range(2):
        for run, state in zip(runs, states):
            with state:
                evaluator.process(run[step])
    found = []
    for run, state in zip(runs, states):
        assert state.results == [[value for batch in run for value in batch]]
        with state:
            found.append(evaluator.evaluate(3))
    assert found == [alone(run) for run in runs]
    assert evaluator.metrics[0].truth is truth  # shared, never copied
    metric, fresh = evaluator.metrics[0], Counting()
    assert metric.results == [] and not hasattr(metric, 'last')
    for name in ('number', 'seen', 'nested', 'pairs', 'recent', 'sums'):
        assert str(getattr(metric, name)) == str(getattr(fresh, name)), name


class Idle(Counting):
    """Changes nothing at the first batch, and then in place."""

    def process(self, data_batch, data_samples):
        self.sums += data_samples[0]
        self.by_value['z' if data_samples[0] else 'a'] = 0

    def compute_metrics(self, results):
        return dict(sums=self.sums.tolist(), keys=sorted(self.by_value))


def test_what_changes_late_stays_its_own():
    evaluator = Evaluator(Idle())
    states = [MetricState(evaluator.metrics) for _ in range(3)]
    for values in ((0, 1, 2), (100, 1, 2), (3, 0, 5)):
        for value, state in zip(values, states):
            with state:
                evaluator.process([value])
    found = []
    for state in states:
        with state:
            found.append(evaluator.evaluate(3)['sums'])
    assert found == [[103.0] * 2, [2.0] * 2, [9.0] * 2]
    assert evaluator.metrics[0].sums.tolist() == [0.0, 0.0]


class Elsewhere(Counting):
    """Counts inside of an object, as torchmetrics does."""

    def __init__(self):
        super().__init__()
        self.confusion = SimpleNamespace(matrix=np.zeros((2, 2)), names=['a'])

    def process(self, data_batch, data_samples):
        self.confusion.matrix[0, 0] += 1


def test_state_that_cannot_be_kept_apart_is_refused():
    metrics = Evaluator(Elsewhere()).metrics
    message = 'Elsewhere keeps state inside of its confusion.*group_size=1'
    with pytest.raises(UsageError, match=message), MetricState(metrics):
        metrics[0].process(None, [1])
    with MetricState(metrics, shared=False):
        metrics[0].process(None, [1])


def test_tensors_that_move():
    """The device of a metric's tensors may be known at the first batch."""
    metrics = Evaluator(Counting()).metrics
    state = MetricState(metrics)
    with state:
        metrics[0].sums = metrics[0].sums.to('meta')
    assert metrics[0].sums.device.type == 'cpu'
    with state:
        assert metrics[0].sums.device.type == 'meta'
