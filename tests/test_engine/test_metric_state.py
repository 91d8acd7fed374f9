"""Metrics with state of their own, shown the predictions of two subnets."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator

from mutualnet_mm.engine.metric_state import MetricState


class Counting(BaseMetric):
    """Counts in every way that there is, and in its results."""

    def __init__(self):
        super().__init__()
        self.truth = [object()] * 3
        self.number, self.seen, self.by_value = 0, [], {}
        self.matrix, self.sums = np.zeros(2), torch.zeros(2)

    def process(self, data_batch, data_samples):
        for value in data_samples:
            self.results.append(value)
            self.number += 1
            self.seen.append(value)
            self.by_value[value] = self.by_value.get(value, 0) + 1
            self.matrix[value % 2] += value
            self.sums += value
            self.last = value

    def compute_metrics(self, results):
        return dict(
            results=results,
            number=self.number,
            seen=list(self.seen),
            by_value=dict(self.by_value),
            matrix=self.matrix.tolist(),
            sums=self.sums.tolist(),
            last=self.last,
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
    assert evaluator.metrics[0].number == 0
