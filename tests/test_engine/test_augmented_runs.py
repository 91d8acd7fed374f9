"""Test-time augmentation at every subnet, against merging by hand."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.fileio import load
from mmengine.runner import Runner

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.config import augment_tests
from mutualnet_mm.engine import calibrate
from mutualnet_mm.engine.hooks import BNCalibrationHook
from mutualnet_mm.models.build import unwrapped

SUBNETS = ['1.0x-32', '0.5x-16']
DETECTORS = ['1.0x-64', '0.25x-48']  # as box_detector tests


def statistics_of(runner, subnets):
    """Those that the loop finds: None for the full network."""
    batches = BNCalibrationHook().batches(runner)
    found = calibrate(unwrapped(runner.model), subnets[1:], batches)
    return {subnet: found.get(subnet) for subnet in subnets}


def mirrored_scores(model, images, size):
    """Mean of the class probabilities of images and mirror images."""
    if size != images.shape[-1]:
        images = F.interpolate(
            images, (size, size), mode='bilinear', antialias=True
        )
    scores = [
        model(x, mode='tensor').softmax(1) for x in (images, images.flip(-1))
    ]
    return sum(scores) / 2


@torch.no_grad()
def test_scores_are_averaged(make_config, weights):
    cfg = make_config()
    cfg.test_cfg.subnets = SUBNETS
    augment_tests(cfg)
    runner = Runner.from_cfg(cfg)
    model = unwrapped(runner.model)
    model.load_state_dict(weights)
    found = runner.test()

    statistics = statistics_of(runner, SUBNETS)
    images = [
        model.data_preprocessor(
            dict(inputs=batch['inputs'][0], data_samples=None)
        )['inputs']
        for batch in runner.test_dataloader
    ]
    sums = []
    for subnet, prefix in zip(SUBNETS, ('', '0.5x-16/')):
        with model.activate(subnet, statistics[subnet]):
            size = int(subnet.split('-')[1])
            scores = mirrored_scores(model, torch.cat(images), size)
        sums.append(scores.double().pow(2).sum().item())
        assert found[f'{prefix}sums/squares'] == pytest.approx(sums[-1])
    assert abs(sums[0] - sums[1]) > 1e-3


def suppressed(boxes, scores, labels, threshold=0.5):
    """Greedy suppression within each class, in plain numpy."""
    kept = []
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for i in np.argsort(-scores, kind='stable'):
        for j in kept:
            low = np.maximum(boxes[i, :2], boxes[j, :2])
            high = np.minimum(boxes[i, 2:], boxes[j, 2:])
            common = np.prod(np.clip(high - low, 0, None))
            union = areas[i] + areas[j] - common
            if labels[i] == labels[j] and common > threshold * union:
                break
        else:
            kept.append(i)
    return kept[:100]


KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
PACKING = dict(
    type='PackDetInputs', meta_keys=(*KEYS, 'flip', 'flip_direction')
)
FLIPS = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
SIZES = [
    dict(type='Resize', scale=scale, keep_ratio=True)
    for scale in ((107, 64), (80, 48))
]
# What mmdet's tool makes of a pipeline, and one of several sizes.
MIRRORED = [
    dict(type='LoadImageFromFile', backend_args=None),
    SIZES[0],
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='TestTimeAug', transforms=[FLIPS, [PACKING]]),
]
SEVERAL_SIZES = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[SIZES, FLIPS, [PACKING]]),
]
PIPELINES = pytest.mark.parametrize(
    'pipeline', [None, SEVERAL_SIZES], ids=['mirrored', 'sizes']
)


def in_original_image(sample):
    """Boxes of a view, in double precision."""
    boxes = sample.pred_instances.bboxes.double().numpy()
    if sample.flip:
        boxes[:, [2, 0]] = sample.ori_shape[1] - boxes[:, [0, 2]]
    return boxes


@torch.no_grad()
@PIPELINES
def test_boxes_are_merged(box_detector, tmp_path, pipeline):
    cfg = box_detector()
    if pipeline:
        cfg.tta_pipeline = copy.deepcopy(pipeline)
    augment_tests(cfg)
    runner = Runner.from_cfg(cfg)
    runner.model.module.init_weights()
    runner.test()
    files = [tmp_path / 'found.pkl', tmp_path / 'found.0.25x-48.pkl']

    model = unwrapped(runner.model)
    statistics = statistics_of(runner, DETECTORS)
    for subnet, file in zip(DETECTORS, files):
        found = iter(load(file))
        for batch in runner.test_dataloader:
            views = []
            for i in range(4 if pipeline else 2):
                data = model.data_preprocessor(
                    {name: values[i] for name, values in batch.items()}
                )
                inputs = model.task.resize(
                    model, *data.values(), Subnet.parse(subnet)
                )
                with model.activate(subnet, statistics[subnet]):
                    views.append(model(*inputs, mode='predict'))
            for samples in zip(*views):
                boxes = np.concatenate([*map(in_original_image, samples)])
                scores, labels = (
                    torch.cat([s.pred_instances[name] for s in samples])
                    for name in ('scores', 'labels')
                )
                scores, labels = scores.numpy(), labels.numpy()
                kept = suppressed(boxes, scores, labels)
                assert 0 < len(kept) < len(boxes)
                got = next(found)['pred_instances']
                np.testing.assert_allclose(got['scores'], scores[kept])
                np.testing.assert_allclose(
                    got['bboxes'], boxes[kept], rtol=1e-4, atol=1e-3
                )
        assert next(found, None) is None


def augment_by_stock(cfg):
    """What mmdet's tool sets in a config without ``tta_model``."""
    steps = cfg.get('tta_pipeline', copy.deepcopy(MIRRORED))
    cfg.test_dataloader.dataset.pipeline = steps
    nms = dict(type='nms', iou_threshold=0.5)
    cfg.model = ConfigDict(
        type='DetTTAModel',
        tta_cfg=dict(nms=nms, max_per_img=100),
        module=cfg.model,
    )


@PIPELINES
def test_the_full_network_as_by_the_stock_loop(
    box_detector, tmp_path, pipeline
):
    found = []
    for augment, loop in (
        (augment_tests, 'mutualnet_mm.SubnetTestLoop'),
        (augment_by_stock, 'TestLoop'),
    ):
        cfg = box_detector(test_cfg=dict(type=loop))
        if pipeline:
            cfg.tta_pipeline = copy.deepcopy(pipeline)
        augment(cfg)
        cfg.experiment_name = loop
        torch.manual_seed(0)
        runner = Runner.from_cfg(cfg)
        runner.model.module.init_weights()
        runner.test()
        found.append(load(tmp_path / 'found.pkl'))
    assert len(found[0]) == len(found[1]) == 6
    for ours, stock in zip(*found):
        for name in ('scores', 'bboxes', 'labels'):
            assert torch.equal(
                ours['pred_instances'][name], stock['pred_instances'][name]
            )


def test_masks_are_not_merged(box_detector, detector_config):
    """The stock model ends in an assertion."""
    cfg = box_detector(model=detector_config())
    augment_tests(cfg)
    runner = Runner.from_cfg(cfg)
    runner.model.module.init_weights()
    with pytest.raises(UsageError) as error:
        runner.test()
    assert 'DetTTAModel cannot merge' in str(error.value)
    assert 'TTA of instance segmentation' in str(error.value)
