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


class Listed(Elsewhere):
    """Counts in a list of an object that lies in a list."""

    def __init__(self):
        super().__init__()
        self.confusion = [dict(a=SimpleNamespace(rows=[]))]

    def process(self, data_batch, data_samples):
        self.confusion[0]['a'].rows.append(data_samples)


class Buffered(Elsewhere):
    """Counts in a buffer of a part of a module."""

    def __init__(self):
        super().__init__()
        self.confusion = torch.nn.Sequential(torch.nn.BatchNorm1d(2))

    def process(self, data_batch, data_samples):
        self.confusion[0].num_batches_tracked += 1


class Fixed(Elsewhere):
    """Counts in places of an object that are there from the start."""

    def __init__(self):
        super().__init__()
        self.confusion = SimpleNamespace(sums=dict(a=[0, dict(b=0)]))

    def process(self, data_batch, data_samples):
        self.confusion.sums['a'][1]['b'] += 1


@pytest.mark.parametrize('kind', [Elsewhere, Listed, Buffered, Fixed])
def test_state_that_cannot_be_kept_apart_is_refused(kind):
    metrics = Evaluator(kind()).metrics
    name = kind.__name__
    message = f'{name} keeps state inside of its confusion.*group_size=1'
    with pytest.raises(UsageError, match=message), MetricState(metrics):
        metrics[0].process(None, [1])
    with MetricState(metrics, shared=False):
        metrics[0].process(None, [1])


class Steady(BaseMetric):
    """Holds what is equal to nothing, and what holds itself."""

    def __init__(self):
        super().__init__()
        tree = dict(children=[])
        tree['children'].append(dict(parent=tree))
        odd = np.array([np.array([1.0, np.nan]), None], dtype=object)
        self.inner = SimpleNamespace(
            tree=tree,
            arrays=dict(a=np.array([np.nan, 1.0]), b=[odd]),
            tensor=torch.tensor([float('nan')]),
        )

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(number=len(results))


def test_what_does_not_change_is_shared():
    metrics = Evaluator(Steady()).metrics
    state = MetricState(metrics)
    with state:
        metrics[0].process(None, [1])
    assert state.results == [[1]]


class ByTask(BaseMetric):
    """Leaves all to metrics in a container, as mmpretrain's for tasks does."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def process(self, data_batch, data_samples):
        for metric in self._all():
            metric.process(data_batch, data_samples)

    def _all(self):
        if isinstance(self.inner, BaseMetric):
            return [self.inner]
        return [metric for rows in self.inner.values() for metric in rows]

    def compute_metrics(self, results):
        raise NotImplementedError

    def evaluate(self, size):
        return {
            f'{i}_{name}': value
            for i, metric in enumerate(self._all())
            for name, value in metric.evaluate(size).items()
        }


@pytest.mark.parametrize(
    'make',
    [
        Counting,
        lambda: dict(a=[Counting(), Counting()], b=(Counting(),)),
        lambda: dict(a=[ByTask(dict(c=[Counting()]))]),
    ],
)
def test_metrics_that_a_metric_holds(make):
    """Each subnet finds what it would alone."""
    runs = [[[i + 1, i + 2], [i + 5]] for i in range(2)]
    expected = []
    for run in runs:
        evaluator = Evaluator(ByTask(make()))
        for batch in run:
            evaluator.process(batch)
        expected.append(evaluator.evaluate(3))
    evaluator = Evaluator(ByTask(make()))
    states = [MetricState(evaluator.metrics) for _ in runs]
    for step in range(2):
        for run, state in zip(runs, states):
            with state:
                evaluator.process(run[step])
    assert [len(state.results) for state in states] == [1, 1]
    for state, values in zip(states, expected):
        with state:
            assert evaluator.evaluate(3) == values


def test_tensors_that_move():
    """The device of a metric's tensors may be known at the first batch."""
    metrics = Evaluator(Counting()).metrics
    state = MetricState(metrics)
    with state:
        metrics[0].sums = metrics[0].sums.to('meta')
    assert metrics[0].sums.device.type == 'cpu'
    with state:
        assert metrics[0].sums.device.type == 'meta'


def test_what_is_said_of_the_data_set_once():
    """As mmdet's evaluator of several data sets does, at its first score."""
    (metric,) = Evaluator(Counting()).metrics
    metric.dataset_meta = [dict(classes=('a',))]
    states = [MetricState([metric]) for _ in range(2)]
    with states[0]:
        metric.dataset_meta = dict(classes=('a',))
    with states[1]:
        assert metric.dataset_meta == dict(classes=('a',))


def test_results_that_are_no_list():
    """LVIS keeps them by category."""
    (metric,) = Evaluator(Counting()).metrics
    metric.results = {}
    states = [MetricState([metric]) for _ in range(2)]
    for number, state in enumerate(states):
        with state:
            metric.results[number] = number
    assert [state.results for state in states] == [[{0: 0}], [{1: 1}]]
