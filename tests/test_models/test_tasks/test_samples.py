"""What one pass writes into its samples, no other one sees."""

import copy

import numpy as np
import pytest
import torch

from mutualnet_mm import Subnet

NAMES = ('1.0x-64', '0.5x-48')


def spoil(samples):
    """Write as stock heads do, and into every array besides."""
    for sample in samples:
        truth = sample.gt_instances
        truth.masks.masks[:] = 7
        truth.masks = truth.masks.to_tensor(torch.bool, 'cpu')
        boxes = truth.bboxes
        getattr(boxes, 'tensor', boxes).zero_()
        truth.labels.fill_(9)
        sample.gt_sem_seg.sem_seg.fill_(5)
        sample.pred_instances = truth


def contents(samples):
    found = []
    for sample in samples:
        truth = sample.gt_instances
        boxes = getattr(truth.bboxes, 'tensor', truth.bboxes)
        found += [
            np.array(truth.masks.masks),
            boxes.numpy().copy(),
            truth.labels.numpy().copy(),
            sample.gt_sem_seg.sem_seg.numpy().copy(),
        ]
    return found


@pytest.fixture
def preprocessed(load_batch):
    """Return a batch with segmentation maps, and the two sizes carried."""
    pytest.importorskip('mmdet')
    from mmengine.structures import PixelData

    def make(model, carried=False):
        batch = load_batch((0, 1))
        for inputs, sample in zip(batch['inputs'], batch['data_samples']):
            seg = torch.ones(1, *sample.img_shape, dtype=torch.long)
            sample.gt_sem_seg = PixelData(sem_seg=seg)
            if carried:
                packed = dict(inputs=inputs, data_samples=sample.clone())
                sample.set_field({48: packed}, 'multi_resolution', dtype=dict)
        return model.data_preprocessor(batch, True)

    return make


@pytest.mark.parametrize('carried', [False, True], ids=['', 'carried'])
@pytest.mark.parametrize('name', NAMES)
def test_training_samples_belong_to_a_pass(
    build_detector, preprocessed, name, carried
):
    model, subnet = build_detector(), Subnet.parse(name)
    data = preprocessed(model, carried)
    before = contents(data['data_samples'])
    passes = []
    for _ in range(2):
        _, samples = model.task.resize(
            model, *data.values(), subnet, with_truth=True
        )
        passes.append(contents(samples))
        spoil(samples)
    for first, second in zip(*passes):
        np.testing.assert_array_equal(first, second)
    for old, new in zip(before, contents(data['data_samples'])):
        np.testing.assert_array_equal(old, new)
    assert all('pred_instances' not in s for s in data['data_samples'])


@pytest.mark.parametrize('name', NAMES)
def test_predictions_stay_in_their_pass(build_detector, preprocessed, name):
    model = build_detector()
    data = preprocessed(model)
    _, samples = model.task.resize(
        model, *data.values(), Subnet.parse(name), with_truth=False
    )
    for sample in samples:
        sample.pred_instances = sample.gt_instances
    assert all('pred_instances' not in s for s in data['data_samples'])


def test_rtmdet_ins_trains_at_the_full_resolution(detector_config, load_batch):
    """Its head turns the masks of the batch into tensors.

    The loss of each subnet is the one that it has alone, on a new batch.
    """
    from mmengine.hub import get_config
    from mmengine.registry import MODELS

    stock = get_config('mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py')
    config = detector_config(dict(widths=(1.0, 0.5), resolution=(64,)))
    head = copy.deepcopy(stock.model.bbox_head)
    head.update(
        in_channels=32,
        feat_channels=32,
        num_classes=2,
        num_prototypes=4,
        stacked_convs=1,
        norm_cfg=dict(type='GN', num_groups=2),
    )
    head.anchor_generator.strides = [4, 8, 16]
    config.neck.update(num_outs=3, in_channels=[16, 32, 64])
    config.backbone.update(num_stages=3, out_indices=(0, 1, 2))
    config.backbone.update(strides=(1, 2, 2), dilations=(1, 1, 1))
    for name in ('rpn_head', 'roi_head'):
        config.pop(name)
    config.update(
        wraps='RTMDet',
        bbox_head=head,
        train_cfg=stock.model.train_cfg,
        test_cfg=stock.model.test_cfg,
    )
    model = MODELS.build(config).train()
    batch = load_batch((0, 1))
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    losses = model(**data, mode='loss')
    state = copy.deepcopy(model.state_dict())
    alone = model.data_preprocessor(batch, True)
    model.load_state_dict(state)
    with torch.no_grad(), model.activate('0.5x-64'):
        expected, _ = model.parse_losses(
            type(model).stock_class.loss(model, *alone.values())
        )
    torch.testing.assert_close(
        losses['fixed1/total'], expected, rtol=1e-4, atol=1e-4
    )
