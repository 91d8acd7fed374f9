"""Boxes of 2 to 6 pixels: finite losses, and a word where none is learned."""

import copy

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from thin_detectors import thin, thin_transformers

from mutualnet_mm.models.learned_boxes import PASSES, LearnedBoxes

pytest.importorskip('mmdet')

NAMES = dict(
    mask_rcnn='mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
    faster_rcnn='faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
    fcos='fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
    atss='atss/atss_r50_fpn_1x_coco',
    gfl='gfl/gfl_r50_fpn_1x_coco',
    detr='detr/detr_r50_8xb2-150e_coco',
)
SIDES = [(2, 2), (2, 6), (6, 2), (3, 4), (5, 5), (6, 6), (2.2, 2.2), (0.5, 9)]


@pytest.fixture
def build(enter_scope):
    """Return a tiny detector of a stock config."""
    enter_scope('mmdet')
    from mmengine.hub import get_config

    def make(kind, resolution=(64, 32, 16), **mutual):
        model = copy.deepcopy(get_config(f'mmdet::{NAMES[kind]}.py').model)
        if kind == 'detr':
            thin_transformers(model)
            model.num_queries = 12
            model.neck.update(in_channels=[256], out_channels=32)
        else:
            thin(model)
        model.backbone.update(
            depth=18,
            base_channels=8,
            stem_channels=8,
            norm_cfg=dict(type='BN'),
            norm_eval=False,
            frozen_stages=-1,
            init_cfg=None,
            wraps='ResNet',
            type='mutualnet_mm.Slimmable',
        )
        channels = [8, 16, 32, 64]
        model.neck.in_channels = channels[-len(model.neck.in_channels) :]
        if kind in ('fcos', 'atss', 'gfl'):
            norm = dict(type='GN', num_groups=4)
            model.bbox_head.update(norm_cfg=norm, stacked_convs=1)
        if kind == 'fcos':
            del model.bbox_head['norm_cfg']
        model.update(
            wraps=model.type,
            type='mutualnet_mm.MutualLearning',
            mutual=dict(resolution=resolution, **mutual),
        )
        built = MODELS.build(model)
        built.init_weights()
        return built

    return make


def batch_of(sides, size=64, seed=0, with_masks=True):
    """Two images with objects of these sides, and one without any."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    rng = np.random.default_rng(seed)
    samples = []
    for number in (len(sides), min(1, len(sides)), 0):
        boxes, masks = [], []
        for w, h in sides[:number]:
            x, y = rng.uniform(0, size - w), rng.uniform(0, size - h)
            boxes.append([x, y, x + w, y + h])
            mask = np.zeros((size, size), np.uint8)
            mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
            masks.append(mask)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(size, size),
                ori_shape=(size, size),
                pad_shape=(size, size),
                batch_input_shape=(size, size),
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes).reshape(-1, 4).float(),
            labels=torch.arange(number) % 80,
        )
        if with_masks:
            stack = np.array(masks, np.uint8).reshape(-1, size, size)
            sample.gt_instances.masks = BitmapMasks(stack, size, size)
        samples.append(sample)
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(3, 3, size, size, generator=generator)
    return inputs, samples


@pytest.mark.parametrize('kind', NAMES)
def test_losses_are_finite(build, kind):
    """Where boxes are a pixel wide, lose an edge or vanish with a mask."""
    model = build(kind).train()
    for seed, sides in enumerate([SIDES, SIDES[:1], [(1.5, 1.5)]]):
        losses = model.loss(*batch_of(sides, seed=seed))
        assert {'min/total', 'rand1/total', 'rand2/total'} <= set(losses)
        total, logged = model.parse_losses(losses)
        total.backward()
        for name, value in logged.items():
            assert np.isfinite(float(value)), (name, sides)
    assert all(
        p.grad is None or p.grad.isfinite().all() for p in model.parameters()
    )


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(
        'mutualnet_mm.models.learned_boxes.print_log',
        lambda text, *_, **__: found.append(text),
    )
    monkeypatch.setattr('mutualnet_mm.models.learned_boxes.PASSES', 3)
    return found


def step(model, sides, seed, size=64):
    losses = model.loss(*batch_of(sides, size, seed))
    return model.parse_losses(losses)[0]


def test_a_resolution_that_learns_background_is_named_once(build, warnings):
    """ATSS: its threshold, mean and deviation of a box's overlaps with the
    nearest anchors of each level, is above all of them on 32 pixels."""
    for resolution, learns in ((64, True), (32, False)):
        settings = dict(resolution=(128, resolution), num_random=0)
        model = build('atss', **settings).train()
        for seed in range(8):
            step(model, [(60.0, 60.0), (48.0, 80.0)], seed, 128)
        assert learns == (not warnings)
    (text,) = warnings
    assert text.startswith('loss_bbox was exactly 0 in the first 3 passes of')
    assert 'resolution 32 (the last one of 0.25x-32)' in text
    assert 'ATSSAssigner of ATSSHead finds no box' in text
    assert 'mutual.resolution' in text and '\n' not in text


def test_objects_of_an_empty_data_set_are_not_missed(build, warnings):
    model = build('atss', resolution=(64, 16), num_random=0).train()
    for seed in range(8):
        inputs, samples = batch_of([], seed=seed)
        model.loss(inputs, samples)
    (text,) = warnings  # but that there are none
    assert 'have no object' in text


def test_proposals_are_told_from_what_follows(build, warnings):
    """Boxes below 16 pixels overlap no anchor of an RPN by 0.3."""
    model = build('faster_rcnn', resolution=(64, 32), num_random=0).train()
    for seed in range(8):
        step(model, [(6.0, 6.0)], seed)
    assert [text.split()[0] for text in warnings] == ['loss_rpn_bbox'] * 2
    assert all('MaxIoUAssigner of RPNHead' in text for text in warnings)


def test_nothing_is_read_once_boxes_were_learned(build, warnings):
    model = build('fcos', resolution=(64, 32), num_random=0).train()
    boxes = model._learned_boxes
    counts = []
    finish = boxes.finish
    boxes.finish = lambda values: counts.append(len(values)) or finish(values)
    for seed in range(4):
        step(model, [(30, 30), (24, 40)], seed)
    assert counts[0] == 2 and counts[1:] == [0, 0, 0]
    assert PASSES == 100 and not warnings


@pytest.mark.parametrize('later', [None, 5, PASSES + 1])
def test_no_object_at_all(later, monkeypatch):
    """Data sets keep images whose objects they drop."""
    said = []
    monkeypatch.setattr(
        'mutualnet_mm.models.learned_boxes.print_log',
        lambda text, **_: said.append(text),
    )
    boxes = LearnedBoxes(torch.nn.Module())
    for step in range(3 * PASSES):
        boxes.start(step == later)
        boxes.finish([])
    assert len(said) == (0 if later == 5 else 1)
    assert all('have no object' in text for text in said)


def test_models_without_boxes(build_classifier):
    model = build_classifier(dict(resolution=(64, 32)))
    assert model.task.has_boxes([]) is None
