"""Random batches, as the stock preprocessors take them."""

from types import SimpleNamespace

import pytest
import torch

from mutualnet_mm import SubnetSpace, UsageError
from mutualnet_mm.engine.trial_batch import random_batch


class Task:
    """Of a network of so many channels."""

    def __init__(self, name, shape=(3,)):
        self.name, self.shape = name, shape

    def input_channels(self, model):
        return self.shape[0]

    def input_shape(self, model, subnet, image_shape):
        return (1, *self.shape)

    def head(self, model):
        return model.head


def model(name, shape=(3,), **attributes):
    space = SubnetSpace(resolution=(64, 32))
    return SimpleNamespace(task=Task(name, shape), space=space, **attributes)


def test_images():
    pytest.importorskip('mmpretrain')
    batch = random_batch(model('classification', (1,)))
    assert [tuple(x.shape) for x in batch['inputs']] == [(1, 64, 64)] * 2
    assert batch['inputs'][0].dtype == torch.uint8
    assert batch['inputs'][0].float().std() > 50
    assert not torch.equal(*batch['inputs'])
    assert [s.gt_label.tolist() for s in batch['data_samples']] == [[0], [0]]


@pytest.mark.parametrize('pad_seg', [False, True])
@pytest.mark.parametrize('with_rpn', [False, True])
def test_scenes(pad_seg, with_rpn):
    pytest.importorskip('mmdet')
    preprocessor = SimpleNamespace(pad_seg=pad_seg)
    given = dict(data_preprocessor=preprocessor, with_rpn=with_rpn)
    sample = random_batch(model('detection', **given))['data_samples'][0]
    truth = sample.gt_instances
    assert sample.img_shape == sample.ori_shape == (64, 64)
    assert truth.labels.tolist() == [0, 0]
    for box, mask in zip(truth.bboxes.int().tolist(), truth.masks.masks):
        rows, columns = mask.nonzero()
        corners = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert list(corners) == box
    # Only what the model is trained on.
    assert ('gt_sem_seg' in sample) == pad_seg
    assert ('proposals' in sample) == (not with_rpn)


@pytest.mark.parametrize('multi_class', [False, True])
def test_clips(multi_class):
    pytest.importorskip('mmaction')
    head = SimpleNamespace(multi_class=multi_class, num_classes=4)
    batch = random_batch(model('action', (1, 3, 4, 64, 64), head=head))
    assert [tuple(x.shape) for x in batch['inputs']] == [(1, 3, 4, 64, 64)] * 2
    label = batch['data_samples'][0].gt_label.tolist()
    assert label == ([1.0, 0.0, 0.0, 0.0] if multi_class else [0])


def test_other_tasks():
    with pytest.raises(UsageError, match="no random batch of task 'depth'"):
        random_batch(model('depth'))
