"""Average precision of many labels on drawn test sets, against its formula."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from mutualnet_mm.engine import label_precision
from mutualnet_mm.engine.label_precision import resampled_label_precision
from mutualnet_mm.query_table.resampling import NUMBER, drawn_counts

IMAGES, CLASSES = 12, 3


def pretrain(scores, truth):
    metrics = pytest.importorskip('mmpretrain.evaluation')
    samples = [
        dict(pred_score=torch.tensor(s), gt_score=torch.tensor(t))
        for s, t in zip(scores, truth)
    ]
    return metrics.AveragePrecision(), samples


def action(scores, truth):
    metrics = pytest.importorskip('mmaction.evaluation')
    samples = [
        dict(pred_score=torch.tensor(s), gt_label=torch.tensor(t))
        for s, t in zip(scores, truth)
    ]
    return metrics.AccMetric(metric_list='mean_average_precision'), samples


KINDS = dict(
    pretrain=(pretrain, 'multi-label/mAP', 100.0),
    action=(action, 'acc/mean_average_precision', 1.0),
)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def made_up():
    rng = np.random.default_rng(0)
    truth = (rng.random((IMAGES, CLASSES)) < 0.5).astype(np.int64)
    truth[0] = 1  # some of each class
    scores = rng.random((IMAGES, CLASSES)) + 0.4 * truth
    return scores.astype(np.float32), truth


def by_hand(scores, truth, is_tied):
    """Mean over ranks of right labels; ties count together, or in turn."""
    found = []
    for score, label in zip(scores.T, truth.T):
        order = np.argsort(-score, kind='stable')
        score, label = score[order], label[order]
        precisions = []
        for place in np.flatnonzero(label):
            last = place
            while (
                is_tied
                and last + 1 < len(score)
                and (score[last + 1] == score[place])
            ):
                last += 1
            precisions.append(label[: last + 1].sum() / (last + 1))
        if precisions:
            found.append(np.mean(precisions))
    return np.mean(found) if found else np.nan


def evaluated(make, scores, truth):
    metric, samples = make(scores, truth)
    evaluator = Evaluator(metric)
    metric.process(None, samples)
    kept = [list(metric.results)]
    return kept, evaluator.evaluate(len(samples)), evaluator.metrics


def test_as_the_formula_on_each_drawn_set(kind):
    make, name, scale = kind
    scores, truth = made_up()
    found = resampled_label_precision(*evaluated(make, scores, truth))
    assert list(found) == [name] and len(found[name]) == NUMBER
    for value, row in zip(found[name], drawn_counts(IMAGES)[:40]):
        copies = np.arange(IMAGES).repeat(row)
        expected = by_hand(scores[copies], truth[copies], make is action)
        assert value == pytest.approx(scale * expected, rel=1e-5)
    assert min(found[name]) < max(found[name])


def test_rare_classes(kind):
    """The interval of what all sets find is about what was found."""
    make, name, _ = kind
    scores, truth = made_up()
    truth = np.eye(IMAGES, CLASSES, dtype=np.int64)
    kept, given, metrics = evaluated(make, scores + 2 * truth, truth)
    found = resampled_label_precision(kept, given, metrics)
    # Each class has one image, which is the first of its scores.
    assert set(found[name]) == {given[name]}


def test_sets_without_labels(kind):
    """One image alone has some, which a third of the sets lacks."""
    make, name, _ = kind
    scores, truth = made_up()
    truth[1:] = 0
    found = resampled_label_precision(*evaluated(make, scores, truth))
    assert len(found[name]) == NUMBER and np.isfinite(found[name]).all()


@pytest.mark.parametrize(
    'reason', ['another value', 'other names', 'too many']
)
def test_left_out(kind, reason, monkeypatch):
    make, name, _ = kind
    kept, given, metrics = evaluated(make, *made_up())
    if reason == 'another value':
        given[name] *= 1.01
    elif reason == 'names':
        given = {'acc/top1': 0.5}
    else:
        monkeypatch.setattr(label_precision, '_MOST', IMAGES * CLASSES - 1)
    assert not resampled_label_precision(kept, given, metrics)


def test_other_metrics(kind):
    """Nothing is asked of what is no average precision."""

    class Other:
        prefix = 'multi-label'

    assert not resampled_label_precision(
        [[dict(pred_score=[0.5])]], {kind[1]: 0.5}, [Other()]
    )
