"""Average precision of drawn test sets, against pycocotools run on each."""

import contextlib
import copy
import io

import numpy as np
import pytest
import torch

from mutualnet_mm.engine.coco_matches import (
    matches_of,
    recorded_evaluations,
    resampled_precision,
)
from mutualnet_mm.query_table.average_precision import one_of_each
from mutualnet_mm.query_table.resampling import NUMBER, drawn_counts

pytest.importorskip('pycocotools')
IMAGES, CLASSES = 9, 3


def made_up(seed):
    """Ground truth and detections, with crowds, misses and empty images."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for image in range(1, IMAGES + 1):
        for _ in range(rng.integers(0, 5)):
            x, y, w, h = rng.uniform(5, 60, 4)
            truth.append(
                dict(
                    image_id=image,
                    category_id=int(rng.integers(1, CLASSES + 1)),
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=int(rng.random() < 0.15),
                )
            )
            for _ in range(rng.integers(0, 3)):
                shift = rng.normal(0, 3, 4)
                found.append(
                    dict(
                        image_id=image,
                        category_id=truth[-1]['category_id'],
                        bbox=list(np.abs([x, y, w, h] + shift)),
                        score=float(rng.random()),
                    )
                )
        for _ in range(rng.integers(0, 4)):
            found.append(
                dict(
                    image_id=image,
                    category_id=int(rng.integers(1, CLASSES + 1)),
                    bbox=list(rng.uniform(5, 60, 4)),
                    score=float(rng.random()),
                )
            )
    return truth, found


def coco_of(truth, images):
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=i, height=200, width=200) for i in images],
        categories=[dict(id=i + 1, name=str(i)) for i in range(CLASSES)],
        annotations=[
            dict(copy.deepcopy(one), id=i) for i, one in enumerate(truth, 1)
        ],
    )
    coco.createIndex()
    return coco


def evaluate(truth, found, images, max_dets=(1, 10, 100)):
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_of(truth, images)
        results = coco.loadRes(copy.deepcopy(found))
        evaluation = COCOeval(coco, results, 'bbox')
        evaluation.params.maxDets = list(max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def drawn_set(items, counts):
    """Copies of images, each with a number of its own, in order."""
    numbers = {}
    first = 1
    for image, count in enumerate(counts, 1):
        numbers[image] = range(first, first + count)
        first += count
    copies = [
        dict(one, image_id=number)
        for image in sorted(numbers)
        for number in numbers[image]
        for one in items
        if one['image_id'] == image
    ]
    return copies, range(1, first)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('max_dets', [(1, 10, 100), (1, 2, 3)])
def test_as_pycocotools_on_each_drawn_set(seed, max_dets):
    truth, found = made_up(seed)
    whole = evaluate(truth, found, range(1, IMAGES + 1), max_dets)
    matches = matches_of(whole, max_dets[-1])
    counts = drawn_counts(IMAGES)[:6]
    assert (counts.sum(axis=1) == IMAGES).all() and counts.max() > 1
    counts = np.concatenate([one_of_each(IMAGES), counts])
    # One class is drawn never, and no class at all.
    counts = np.concatenate([counts, np.eye(IMAGES, dtype=int) * 3])
    each = matches.average_precision(counts)
    mean, half = each.mean(axis=1), each[:, 0]
    for row, ours, ours_half in zip(counts, mean, half):
        copies, images = drawn_set(truth, row)
        detections, _ = drawn_set(found, row)
        if not detections:  # which pycocotools cannot load
            continue
        stock = evaluate(copies, detections, images, max_dets)
        precision = stock.eval['precision'][..., 0, -1]
        for part, value in ((precision, ours), (precision[:1], ours_half)):
            there = part[part > -1]
            expected = there.mean() if there.size else -1
            assert value == pytest.approx(expected, abs=1e-12)
    # In parts, if there is not enough memory for all at once.
    patched = pytest.MonkeyPatch()
    with patched.context() as patch:
        place = 'mutualnet_mm.query_table.average_precision._CHUNK'
        patch.setattr(place, 1)
        assert np.array_equal(matches.average_precision(counts), each)


def test_images_are_drawn_as_often_as_any():
    counts = drawn_counts(40)
    assert counts.shape == (NUMBER, 40) and (counts.sum(axis=1) == 40).all()
    assert np.array_equal(counts, drawn_counts(40))
    assert counts.mean(axis=0) == pytest.approx(np.ones(40), abs=0.2)
    assert counts.var(axis=0).mean() == pytest.approx(39 / 40, abs=0.05)


@pytest.fixture
def stock_metric(tiny_coco):
    metrics = pytest.importorskip('mmdet.evaluation.metrics')

    def make(**settings):
        metric = metrics.CocoMetric(
            ann_file=str(tiny_coco / 'val.json'), **settings
        )
        metric.dataset_meta = dict(classes=('box', 'triangle'))
        return metric

    return make


def samples(metric, seed=0):
    """Predictions that are sometimes right."""
    rng = np.random.default_rng(seed)
    for image in metric._coco_api.loadImgs(metric._coco_api.getImgIds()):
        boxes, labels = [], []
        for one in metric._coco_api.imgToAnns[image['id']]:
            x, y, w, h = one['bbox'] + rng.normal(0, 2, 4)
            boxes.append([x, y, x + w, y + h])
            labels.append(one['category_id'])
        boxes.append([1, 1, 30, 30])
        labels.append(0)
        scores = torch.from_numpy(rng.random(len(labels)))
        yield dict(
            img_id=image['id'],
            ori_shape=(image['height'], image['width']),
            pred_instances=dict(
                bboxes=torch.tensor(boxes),
                labels=torch.tensor(labels),
                scores=scores,
            ),
        )


def test_what_the_stock_metric_computes(stock_metric):
    from mmdet.evaluation.metrics import coco_metric

    stock = coco_metric.COCOeval
    metric = stock_metric(classwise=True)
    metric.process({}, list(samples(metric)))
    with recorded_evaluations([metric]) as evaluations:
        scores = metric.evaluate(6)
    assert coco_metric.COCOeval is stock and len(evaluations) == 1
    resampled = resampled_precision(evaluations, scores, [metric])
    assert set(resampled) == {
        'coco/bbox_mAP',
        'coco/bbox_mAP_50',
        'coco/bbox_mAP_75',
    }
    for name, values in resampled.items():
        assert len(values) == NUMBER and min(values) < scores[name] < max(
            values
        )
    # Of six images, one of which has no object, as few as one is drawn.
    only_empty = [drawn_counts(6)[:, :5].sum(axis=1) == 0]
    assert np.sum(only_empty) <= 1
    # What does not fit the score is left out.
    wrong = dict(scores, **{'coco/bbox_mAP': 0.0})
    assert 'coco/bbox_mAP' not in resampled_precision(
        evaluations, wrong, [metric]
    )
    assert resampled_precision(evaluations, scores, [metric, metric]) == {}
    assert resampled_precision(evaluations, scores, []) == {}


@pytest.mark.parametrize(
    'settings, names',
    [
        (
            dict(iou_thrs=np.array([0.5])),
            {'coco/bbox_mAP', 'coco/bbox_mAP_50'},
        ),
        (dict(metric='proposal'), set()),
        (dict(metric_items=['mAP_75']), {'coco/bbox_mAP_75'}),
        (
            dict(prefix='mine'),
            {f'mine/bbox_mAP{x}' for x in ('', '_50', '_75')},
        ),
    ],
)
def test_settings_of_the_metric(stock_metric, settings, names):
    metric = stock_metric(**settings)
    metric.process({}, list(samples(metric)))
    with recorded_evaluations([metric]) as evaluations:
        scores = metric.evaluate(6)
    assert set(resampled_precision(evaluations, scores, [metric])) == names
