"""Heads that count what they see count one pass of a step."""

import copy
from collections import deque

import pytest
import torch
from torch import nn

from mutualnet_mm.models.head_state import unchanged_state


class Assigner:
    """No module, as mmdet's."""

    def __init__(self):
        self.threshold = 0.5
        self.seen = []


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer('counts', torch.zeros(3))
        self.calls = 0
        self.history, self.recent = [], deque([1], maxlen=2)
        self.by_class = {}
        self.assigner = Assigner()
        self.assigners = [Assigner()]

    def forward(self, x):
        self.counts += 1
        self.calls += 1
        self.history.append(self.calls)
        self.recent.append(self.calls)
        self.by_class[self.calls] = 1
        self.last = float(self.calls)
        for assigner in (self.assigner, *self.assigners):
            assigner.threshold += 0.1
            assigner.seen.append(1)
        return self.layer(x)


def state_of(net):
    helpers = [vars(a) for a in (net.assigner, *net.assigners)]
    return copy.deepcopy(
        (
            net.counts.tolist(),
            *(net.calls, net.history, net.recent, net.by_class),
            helpers,
            hasattr(net, 'last'),
        )
    )


def test_everything_is_as_before():
    net, x = Counting(), torch.randn(1, 2)
    before, weight = state_of(net), net.layer.weight
    with unchanged_state(net):
        net(x).sum().backward()
        assert net.calls == 1
    assert state_of(net) == before
    assert net.layer.weight is weight and weight.grad is not None
    net(x)
    once = state_of(net)
    with pytest.raises(ZeroDivisionError), unchanged_state(net):
        net(x)
        raise ZeroDivisionError
    assert state_of(net) == once


def test_dynamic_r_cnn_counts_steps(enter_scope, detector_config, load_batch):
    """Its thresholds follow the full network's proposals alone."""
    from mmengine.registry import MODELS

    config = detector_config()
    config.roi_head.type = 'DynamicRoIHead'
    config.roi_head.pop('mask_roi_extractor')
    config.roi_head.pop('mask_head')
    config.roi_head.bbox_head.loss_bbox = dict(type='SmoothL1Loss', beta=1.0)
    config.wraps = 'FasterRCNN'
    config.train_cfg.rcnn.dynamic_rcnn = dict(
        iou_topk=2,
        beta_topk=2,
        update_iter_interval=10,
        initial_iou=0.4,
        initial_beta=1.0,
    )
    model = MODELS.build(config).train()
    data = model.data_preprocessor(load_batch(), True)
    for step in (1, 2):
        model.loss(**copy.deepcopy(data))
        assert len(model.roi_head.iou_history) == step


def test_seesaw_counts_steps(build_classifier, classifier_config, image_batch):
    """Its class counts are those of the labels seen once in a step."""
    from mmengine.registry import MODELS

    config = classifier_config(dict(supervision='label'))
    config['head']['loss'] = dict(type='SeesawLoss', num_classes=4)
    model = MODELS.build(config).train()
    for step in (1, 2):
        model.loss(*image_batch())
        assert model.head.loss_module.cum_samples.tolist() == [step] * 4
