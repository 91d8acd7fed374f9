"""The size that costs are of is the one that the test pipeline delivers."""

import logging

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose

from mutualnet_mm import ConfigError
from mutualnet_mm.config import TestViews, find_views

LOAD = dict(type='LoadImageFromFile')
TRUTH = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
PACK = dict(type='PackDetInputs')


def resize(width, height, keep_ratio=True):
    return dict(type='Resize', scale=(width, height), keep_ratio=keep_ratio)


CENTER = dict(
    type='RandomCenterCropPad',
    crop_size=None,
    ratios=None,
    border=None,
    test_mode=True,
    test_pad_mode=['logical_or', 31],
    test_pad_add_pix=1,
    mean=[0, 0, 0],
    std=[1, 1, 1],
    to_rgb=True,
)
DETECTION = {
    'short edge': [resize(1333, 800), TRUTH, PACK],
    'long edge': [resize(600, 600), PACK],
    'by chance as it was': [resize(640, 640), PACK],
    'square': [resize(640, 640), dict(type='Pad', size=(640, 640)), PACK],
    'to square': [resize(640, 640), dict(type='Pad', pad_to_square=1), PACK],
    'divisor': [resize(640, 300), dict(type='Pad', size_divisor=32), PACK],
    'sides': [resize(300, 320, False), TRUTH, PACK],
    'canvas': [CENTER, PACK],
    'all sizes': [
        dict(
            type='mutualnet_mm.MultiResolution',
            resolution=(600, 480),
            resize=resize(1000, 600),
            transforms=[TRUTH, PACK],
        ),
    ],
}


@pytest.mark.parametrize('shape', [None, (480, 640), (100, 333), (90, 60)])
@pytest.mark.parametrize('steps', DETECTION.values(), ids=DETECTION)
def test_images_of_a_detector(enter_scope, tmp_path, steps, shape):
    """As the stock pipeline makes them of a file."""
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    steps = [dict(LOAD, to_float32=CENTER in steps), *steps]
    file = str(tmp_path / 'a.png')
    cv2.imwrite(file, np.zeros((*(shape or (480, 640)), 3), np.uint8))
    expected = Compose(steps)(dict(img_path=file, img_id=0, instances=[]))
    cfg = Config(
        dict(
            default_scope='mmdet',
            test_dataloader=dict(dataset=dict(pipeline=steps)),
        )
    )
    found = find_views(cfg, shape)
    assert found == TestViews(None, tuple(expected['inputs'].shape[-2:]))


CROP = dict(type='CenterCrop', crop_size=(96, 80))
EDGE = dict(type='ResizeEdge', scale=128, edge='short')


@pytest.mark.parametrize(
    'steps, shape',
    [
        ([LOAD, EDGE, CROP], (80, 96)),
        ([LOAD, dict(type='Resize', scale=48)], (48, 48)),
        ([dict(type='CenterCrop', crop_size=224)], (224, 224)),
        ([LOAD], None),  # images keep their own size
        ([], None),
        ([LOAD, dict(type='NoSuchStep')], None),
    ],
)
def test_images_of_a_classifier(enter_scope, caplog, steps, shape):
    pytest.importorskip('mmpretrain')
    enter_scope('mmpretrain')
    steps = [*steps, dict(type='PackInputs')] if steps else []
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            test_dataloader=dict(dataset=dict(pipeline=steps)),
        )
    )
    with caplog.at_level(logging.WARNING):
        assert find_views(cfg) == TestViews(None, shape)
    if shape is None and steps == [LOAD, dict(type='PackInputs')]:
        assert find_views(cfg, (30, 40)).shape == (30, 40)
    elif shape is None:
        match = 'NoSuchStep' if steps else 'no test_dataloader'
        with pytest.raises(ConfigError, match=f'{match}.*leave the image'):
            find_views(cfg, (30, 40))


def test_a_square_pipeline_costs_what_a_square_costs(
    build_detector, enter_scope
):
    """Not 1.8 times as much; and no two resolutions are the same size."""
    from mutualnet_mm.cost import count_macs

    model = build_detector(dict(resolution=(128, 96, 64)))
    steps = [LOAD, resize(128, 128), dict(type='Pad', size=(128, 128)), PACK]
    cfg = Config(
        dict(
            default_scope='mmdet',
            test_dataloader=dict(dataset=dict(pipeline=steps)),
        )
    )
    shape = find_views(cfg).shape
    sizes = [
        model.task.input_shape(model, subnet, shape)[2:]
        for subnet in model.space.grid()
        if subnet.width == 1
    ]
    assert sizes == [(128, 128), (96, 96), (64, 64)]
    square, default = (
        count_macs(model, model.space.full, s) for s in (shape, None)
    )
    assert default / square == pytest.approx(192 / 128, rel=0.02)
