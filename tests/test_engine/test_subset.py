import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.registry import DATASETS, METRICS

from mutualnet_mm import UsageError
from mutualnet_mm.engine.hooks import build_dataset
from mutualnet_mm.engine.subset import keep_random, limit_truth


@DATASETS.register_module(force=True)
class Numbers(BaseDataset):
    """Images that are only numbers."""

    METAINFO = dict(classes=('odd', 'even'))

    def load_data_list(self):
        return [dict(img_id=10 * i) for i in range(100)]


def random_subset(config, number):
    dataset = build_dataset(config)
    keep_random(dataset, number)
    return dataset


def numbers(dataset):
    return [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]


@pytest.mark.parametrize('lazy_init', [False, True])
@pytest.mark.parametrize('serialize_data', [False, True])
def test_random_but_always_the_same(lazy_init, serialize_data):
    config = dict(
        type='Numbers', lazy_init=lazy_init, serialize_data=serialize_data
    )
    torch.manual_seed(lazy_init)
    first = random_subset(config, 20)
    chosen = numbers(first)
    assert len(first) == len(set(chosen)) == 20
    assert chosen == sorted(chosen) == numbers(random_subset(config, 20))
    assert max(chosen[:10]) > 0 and max(chosen) > 500  # not the first ones
    assert first.metainfo['classes'] == ('odd', 'even')
    assert numbers(random_subset(config, 100)) == list(range(0, 1000, 10))


@pytest.mark.parametrize('count', [0, -1, 101])
def test_as_many_as_there_are(count):
    message = f'{count}: the test set has 100, so give 1 to 100, or no number'
    with pytest.raises(UsageError, match=message):
        random_subset(dict(type='Numbers'), count)


def test_wrapped_data_sets_are_refused():
    config = dict(type='ConcatDataset', datasets=[dict(type='Numbers')] * 2)
    with pytest.raises(UsageError, match='ConcatDataset cannot be cut to 5'):
        random_subset(config, 5)


def perfect_predictions(dataset):
    """The ground truth, found with certainty."""
    samples = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        boxes = [x['bbox'] for x in info['instances']]
        labels = [x['bbox_label'] for x in info['instances']]
        found = dict(
            bboxes=torch.tensor(boxes).reshape(-1, 4),
            scores=torch.ones(len(boxes)),
            labels=torch.tensor(labels, dtype=torch.long),
        )
        size = (info['height'], info['width'])
        samples.append(
            dict(img_id=info['img_id'], ori_shape=size, pred_instances=found)
        )
    return samples


def test_coco_counts_only_the_images_that_came(
    enter_scope, coco_dataset, tiny_coco
):
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    dataset = random_subset(coco_dataset('val'), 3)
    found = []
    for limit in (True, False):
        coco = dict(
            type='CocoMetric', ann_file=f'{tiny_coco}/val.json', metric='bbox'
        )
        evaluator = Evaluator([coco])
        evaluator.dataset_meta = dataset.metainfo
        if limit:
            limit_truth(evaluator, dataset)
        evaluator.process(perfect_predictions(dataset), None)
        found.append(evaluator.evaluate(3)['coco/bbox_mAP'])
    assert found[0] == 1.0 > found[1]


@METRICS.register_module(force=True)
class OwnTruth(BaseMetric):
    """Reads annotations of its own, as AVA's metric does."""

    def __init__(self, ann_file):
        super().__init__(prefix='own')
        self.ann_file = ann_file

    def process(self, data_batch, data_samples):
        pass

    def compute_metrics(self, results):
        return {}


def test_truth_that_cannot_be_limited():
    dataset = random_subset(dict(type='Numbers'), 3)
    limit_truth(Evaluator([OwnTruth(None)]), dataset)
    with pytest.raises(UsageError, match='OwnTruth compares with all'):
        limit_truth(Evaluator([OwnTruth('truth.csv')]), dataset)


@pytest.mark.parametrize('name', ['_lvis_api', 'occluded_ann'])
def test_coco_metrics_with_truth_of_their_own(name):
    """LVIS has no regard for ``img_ids``: what never came would be missed."""

    class CocoMetric(OwnTruth):
        img_ids = None

    class Other(CocoMetric):
        pass

    dataset = random_subset(dict(type='Numbers'), 3)
    metric = Other(None)
    limit_truth(Evaluator([metric]), dataset)
    assert metric.img_ids == numbers(dataset)
    setattr(metric, name, [1])
    with pytest.raises(UsageError, match='Other compares with all'):
        limit_truth(Evaluator([metric]), dataset)
