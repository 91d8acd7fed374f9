from math import inf, nan

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData

from mutualnet_mm.export.verify import (
    Difference,
    compare,
    compare_all,
    compare_samples,
    largest,
)

APART = Difference(inf, inf)


def test_tensors_as_numpy_compares_them():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4)).astype(np.float32)
    found = compare(torch.from_numpy(a), torch.from_numpy(b))
    absolute = np.abs(a.astype(np.float64) - b).max()
    assert found.absolute == absolute
    assert found.relative == absolute / np.abs(b.astype(np.float64)).max()
    assert compare(torch.from_numpy(a), torch.from_numpy(a)) == (0, 0)


@pytest.mark.parametrize(
    'found, expected',
    [
        ([1.0, 2.0], [1.0]),
        ([nan], [1.0]),
        ([1.0], [nan]),
        ([nan], [nan]),
        ([inf], [inf]),
    ],
)
def test_no_number_says_how_far(found, expected):
    assert compare(torch.tensor(found), torch.tensor(expected)) == APART


def test_zeros():
    zeros = torch.zeros(2)
    assert compare(zeros, zeros) == (0, 0)
    assert compare(zeros + 0.5, zeros) == (0.5, inf)
    assert compare(torch.zeros(0, 4), torch.zeros(0, 4)) == (0, 0)


def test_of_labels_and_masks_the_share_counts():
    labels = torch.tensor([1, 2, 3, 9])
    assert compare(torch.tensor([1, 2, 3, 4]), labels) == (0.25, 0.25)
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    other = mask.clone()
    other[1, 2, 3] = False
    assert compare(other, mask) == (1 / 32, 1 / 32)


def test_largest():
    found = [Difference(1.0, 0.1), Difference(0.5, 0.3)]
    assert largest(found) == (1.0, 0.3)
    assert largest([]) == APART  # nothing was compared
    one = torch.ones(1)
    assert compare_all([one, one], [one, one + 1]) == (1, 0.5)
    assert compare_all([one], [one, one]) == APART


def detections(**changes):
    instances = dict(
        scores=torch.tensor([0.9, 0.4]),
        bboxes=torch.tensor([[0.0, 0.0, 10.0, 20.0], [5.0, 5.0, 9.0, 9.0]]),
        labels=torch.tensor([1, 0]),
    )
    sample = BaseDataElement(metainfo=dict(img_shape=(20, 20)))
    sample.pred_instances = InstanceData(**dict(instances, **changes))
    sample.gt_instances = InstanceData(labels=torch.rand(1))
    return [sample]


def test_samples():
    assert compare_samples(detections(), detections()) == (0, 0)
    boxes = detections()[0].pred_instances.bboxes.clone()
    boxes[1, 0] += 1
    found = compare_samples(detections(bboxes=boxes), detections())
    assert found == (1, 1 / 20)
    labels = torch.tensor([1, 1])
    found = compare_samples(detections(labels=labels), detections())
    assert found == (0.5, 0.5)


def test_samples_of_another_kind():
    fewer = detections()
    fewer[0].pred_instances = fewer[0].pred_instances[:1]
    assert compare_samples(fewer, detections()) == APART
    del fewer[0].pred_instances
    assert compare_samples(fewer, detections()) == APART
    assert compare_samples(detections(), []) == APART
    # Without a prediction there is nothing to compare.
    assert compare_samples(fewer, fewer) == APART
