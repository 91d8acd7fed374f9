"""Heads that count what they see count one pass of a step."""

import copy
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from mutualnet_mm.models.head_state import unchanged_heads, unchanged_state


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
        self.table, self.mean = np.zeros(2), torch.zeros(2)
        self.nested = {'a': [np.zeros(1), torch.zeros(1)], 'b': (set(), {})}
        self.register_buffer('share', torch.zeros(1))
        self.assigner = Assigner()
        self.assigners = [Assigner()]

    def forward(self, x):
        self.counts += 1
        self.calls += 1
        self.history.append(self.calls)
        self.recent.append(self.calls)
        self.by_class[self.calls] = 1
        self.last = float(self.calls)
        self.table += 1
        self.mean += 1
        for part in self.nested['a']:
            part += 1
        self.nested['b'][0].add(self.calls)
        self.nested['b'][1][self.calls] = 1
        self.nested[self.calls] = 1
        # Another tensor, of another shape, and one more: as EQL v2 does.
        self.share = torch.ones(self.calls + 1)
        self.register_buffer('late', torch.ones(1))
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
            *(net.table.tolist(), net.mean.tolist(), str(net.nested)),
            *(net.share.tolist(), [name for name, _ in net.named_buffers()]),
            helpers,
            hasattr(net, 'last'),
        )
    )


def test_everything_is_as_before():
    net, x = Counting(), torch.randn(1, 2)
    before, weight = state_of(net), net.layer.weight
    objects = [net.counts, net.share, net.history, net.nested, net.table]
    with unchanged_state(net):
        net(x).sum().backward()
        assert net.calls == 1
    assert state_of(net) == before
    # What others share with the head must stay shared.
    after = [net.counts, net.share, net.history, net.nested, net.table]
    assert all(a is b for a, b in zip(objects, after))
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


def test_eql_v2_counts_steps(enter_scope, detector_config, load_batch):
    """It puts new tensors in the place of its buffers."""
    from mmengine.registry import MODELS

    config = detector_config()
    head = config.roi_head.bbox_head
    head.loss_cls = dict(type='EQLV2Loss', num_classes=head.num_classes)
    model = MODELS.build(config).train()
    loss, seen = model.roi_head.bbox_head.loss_cls, []
    names = ('pos_grad', 'neg_grad', 'pos_neg')
    loss.register_forward_hook(
        lambda *_: seen.append([getattr(loss, n).clone() for n in names])
    )
    model.loss(**model.data_preprocessor(load_batch(), True))
    assert len(seen) == 4
    assert all(
        torch.equal(getattr(loss, name), value)
        for name, value in zip(names, seen[0])
    )


def test_numbers_of_a_backbone_are_undone():
    """DropBlock counts the steps of its warm-up; maps are left alone."""
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Linear(2, 2), Counting())
    model.head = Counting()
    before = state_of(model.head)
    with unchanged_heads(model):
        for _ in range(3):
            model.head(model.backbone(torch.zeros(1, 2)))
        assert model.backbone[1].calls == 3
    assert model.backbone[1].calls == 0 and model.backbone[1].training
    assert str(state_of(model.head)) == str(before)
    model.backbone(torch.zeros(1, 2))
    assert model.backbone[1].calls == 1
