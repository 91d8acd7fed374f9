"""Fixtures that several test files share. All data is generated here."""

import copy
import json
from contextlib import contextmanager
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from programs import forget_instances
from read_once import stock_configs_read_once
from sweeps import leave_to_the_night
from torch import nn
from verified_once import verified_once

import mutualnet_mm  # noqa: F401  (first: it repairs what comes next)
from mutualnet_mm.devices import prepare_cpu

pytest_plugins = ['table_fixtures']

torch.set_num_threads(1)
# The first KL steps of a fresh network make denormal gradients, which slow
# a CPU down several times.
prepare_cpu()

CLASSES = ('box', 'triangle')
# Height and width, as they come in COCO: wide, high, square, odd.
SIZES = [(60, 80), (80, 60), (64, 64), (45, 77), (60, 80), (80, 63)]
RESOLUTION, LONG_EDGE = (64, 48), 107


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the marks
def pytest_collection_modifyitems(items):
    leave_to_the_night(items)
    for item in items:
        if item.get_closest_marker('nightly') is not None:
            item.add_marker(pytest.mark.timeout(0))  # as long as they take


@pytest.fixture(autouse=True)
def clean_globals():
    """Start from a fixed seed and forget mmengine's global instances."""
    torch.manual_seed(0)
    np.random.seed(0)
    yield
    forget_instances()


@pytest.fixture(autouse=True, scope='session')
def unformatted_configs():
    """Let mmengine write configs as they are: yapf takes seconds for each."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            'yapf.yapflib.yapf_api.FormatCode',
            # The name that mmengine took from there; OneDL's takes it later.
            'mmengine.config.config.FormatCode',
        ):
            patch.setattr(
                name, lambda text, **settings: (text, False), raising=False
            )
        yield


@pytest.fixture(autouse=True, scope='session')
def stock_configs():
    """Read each stock config once, in all tests."""
    with stock_configs_read_once():
        yield


@pytest.fixture(autouse=True, scope='session')
def uncollected_garbage():
    """Let mmengine's data sets collect no garbage: a third of a second each.

    The modules of three projects are searched for it, each time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.dataset.base_dataset.gc', Mock())
        yield


@pytest.fixture(autouse=True, scope='session')
def networks_verified_once():
    """Verify networks that are built alike once, in all tests."""
    with verified_once():
        yield


@pytest.fixture
def full_disk():
    """Return a context in which no file grows beyond so many bytes."""
    resource = pytest.importorskip('resource')  # not on every system

    @contextmanager
    def limit(size=0):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture(scope='session')
def registered():
    """Projects whose modules are imported, by name."""
    return set()


@pytest.fixture
def enter_scope(registered):
    """Make one of the projects the default scope, or skip without it."""

    def enter(name):
        utils = pytest.importorskip(f'{name}.utils')
        DefaultScope.get_instance(f'test-{name}', scope_name=name)
        if name not in registered:  # a tenth of a second, each time
            utils.register_all_modules(init_default_scope=False)
            registered.add(name)

    return enter


@pytest.fixture
def slow_model():
    """Return the config of a small Slow network, which mutual settings fill.

    Of 3 classes, and of widths [0.5, 1.0].
    """

    def make(**mutual):
        return dict(
            type='mutualnet_mm.MutualLearning',
            wraps='Recognizer3D',
            mutual=dict(width_range=(0.5, 1.0), **mutual),
            backbone=dict(
                type='mutualnet_mm.SlimmableResNet3dSlowOnly',
                depth=18,
                base_channels=16,
                conv1_kernel=(1, 7, 7),
                inflate=(0, 0, 1, 1),
                norm_eval=False,
            ),
            cls_head=dict(
                type='I3DHead',
                in_channels=128,
                num_classes=3,
                average_clips='prob',
            ),
            data_preprocessor=dict(
                type='ActionDataPreprocessor',
                # Of each colour others, so that their order shows.
                mean=[110.0, 100.0, 90.0],
                std=[60.0, 50.0, 40.0],
                format_shape='NCTHW',
            ),
        )

    return make


@pytest.fixture(scope='session')
def tiny_coco(tmp_path_factory):
    """Folder of a COCO data set of rectangles and triangles.

    ``train.json`` and ``val.json`` list six images each, the last one
    without any object; every polygon is the exact outline.
    """
    root = tmp_path_factory.mktemp('coco')
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        images, annotations = [], []
        for i, (h, w) in enumerate(SIZES):
            picture = rng.integers(0, 60, (h, w, 3), dtype=np.uint8)
            for _ in range(0 if i == len(SIZES) - 1 else 2):
                outline, label = _draw_object(rng, picture)
                annotations.append(
                    _annotation(len(annotations) + 1, i, outline, label)
                )
            name = f'{split}{i}.png'
            cv2.imwrite(str(root / name), picture)
            images.append(dict(id=i, file_name=name, height=h, width=w))
        categories = [dict(id=i, name=n) for i, n in enumerate(CLASSES)]
        content = dict(
            images=images, annotations=annotations, categories=categories
        )
        (root / f'{split}.json').write_text(json.dumps(content))
    return root


def _draw_object(rng, picture):
    h, w = picture.shape[:2]
    x, y = rng.integers(2, w // 3), rng.integers(2, h // 3)
    dx, dy = rng.integers(w // 3, w // 2), rng.integers(h // 3, h // 2)
    label = int(rng.integers(0, len(CLASSES)))
    outline = [(x, y), (x + dx, y), (x + dx, y + dy)]
    if CLASSES[label] == 'box':
        outline.append((x, y + dy))
    outline = np.array(outline)
    color = rng.integers(120, 255, 3).tolist()
    cv2.fillPoly(picture, [outline], color)
    return outline, label


def _annotation(number, image, outline, label):
    x, y = outline.min(0).tolist()
    w, h = (outline.max(0) - outline.min(0)).tolist()
    area = w * h if CLASSES[label] == 'box' else w * h / 2
    return dict(
        id=number,
        image_id=image,
        category_id=label,
        segmentation=[outline.reshape(-1).tolist()],
        bbox=[x, y, w, h],
        area=area,
        iscrowd=0,
    )


def pipeline(train=True, poly2mask=True, scale=(LONG_EDGE, RESOLUTION[0])):
    """A stock pipeline of mmdet without random parts."""
    load = [
        dict(
            type='LoadAnnotations',
            with_bbox=True,
            with_mask=True,
            poly2mask=poly2mask,
        )
    ]
    resize = [dict(type='Resize', scale=scale, keep_ratio=True)]
    return [
        dict(type='LoadImageFromFile', backend_args=None),
        *(load + resize if train else resize + load),
        dict(
            type='PackDetInputs',
            meta_keys=(
                'img_id',
                'img_path',
                'ori_shape',
                'img_shape',
                'scale_factor',
            ),
        ),
    ]


@pytest.fixture
def detection_pipeline():
    return pipeline


@pytest.fixture
def coco_dataset(tiny_coco):
    """Return the config of a split of the tiny data set."""

    def make(split='train', steps=None):
        return dict(
            type='CocoDataset',
            data_root=str(tiny_coco),
            ann_file=f'{split}.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=CLASSES),
            test_mode=split != 'train',
            filter_cfg=dict(filter_empty_gt=False),
            pipeline=steps or pipeline(split == 'train'),
        )

    return make


@pytest.fixture
def load_batch(enter_scope, coco_dataset):
    """Return a collated batch of the tiny data set, by image numbers."""
    enter_scope('mmdet')

    def load(indices=(0, 1), steps=None, split='train'):
        dataset = DATASETS.build(coco_dataset(split, steps))
        return pseudo_collate([dataset[i] for i in indices])

    return load


@pytest.fixture
def detector_config(enter_scope):
    """Return the config of a small Mask R-CNN, made from a stock config."""
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    from mmengine.hub import get_config

    stock = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model

    def make(mutual=None, **backbone):
        model = ConfigDict(copy.deepcopy(stock.to_dict()))
        model.backbone.update(
            type='mutualnet_mm.Slimmable',
            wraps='ResNet',
            depth=18,
            base_channels=16,
            norm_eval=False,
            frozen_stages=-1,
            init_cfg=None,
        )
        model.backbone.update(backbone)
        model.neck.update(in_channels=[16, 32, 64, 128], out_channels=32)
        model.rpn_head.update(in_channels=32, feat_channels=32)
        roi = model.roi_head
        roi.bbox_roi_extractor.out_channels = 32
        roi.mask_roi_extractor.out_channels = 32
        roi.bbox_head.update(in_channels=32, fc_out_channels=64, num_classes=2)
        roi.mask_head.update(
            num_convs=1, in_channels=32, conv_out_channels=32, num_classes=2
        )
        model.train_cfg.rpn.sampler.num = 32
        model.train_cfg.rpn_proposal.update(nms_pre=60, max_per_img=20)
        model.train_cfg.rcnn.sampler.num = 16
        model.test_cfg.rpn.update(nms_pre=60, max_per_img=20)
        model.test_cfg.rcnn.update(max_per_img=5)
        space = dict(resolution=RESOLUTION)  # the default widths
        model.update(
            type='mutualnet_mm.MutualLearning',
            wraps='MaskRCNN',
            mutual=dict(space, **(mutual or {})),
        )
        return model

    return make


def open_residual_branches(model):
    """Undo the stock zero initialisation, which hides gradients."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.0)
    return model


@pytest.fixture
def build_detector(detector_config):
    def build(mutual=None, **backbone):
        model = MODELS.build(detector_config(mutual, **backbone))
        model.init_weights()
        return open_residual_branches(model)

    return build


@pytest.fixture
def classifier_config(enter_scope):
    """Return the config of a small ResNet-18 classifier of 4 classes."""
    enter_scope('mmpretrain')

    def make(mutual=None, **backbone):
        return dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=dict(
                dict(resolution=(64, 48, 32)),
                **(mutual or {}),
            ),
            backbone=dict(
                dict(
                    type='mutualnet_mm.SlimmableResNet',
                    depth=18,
                    stem_channels=16,
                    base_channels=16,
                ),
                **backbone,
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=4, in_channels=128),
        )

    return make


@pytest.fixture
def build_classifier(classifier_config):
    def build(mutual=None, **backbone):
        model = MODELS.build(classifier_config(mutual, **backbone))
        model.init_weights()
        return open_residual_branches(model)

    return build


@pytest.fixture
def image_batch(enter_scope):
    """Return preprocessed images and samples of a classifier."""
    enter_scope('mmpretrain')

    def make(number=4, size=64, seed=0):
        from mmpretrain.structures import DataSample

        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(number, 3, size, size, generator=generator)
        samples = [DataSample().set_gt_label(i % 4) for i in range(number)]
        return images, samples

    return make
