"""A mutual step on what the training pipelines of stock configs deliver."""

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.registry import DATASETS, MODELS

pytest.importorskip('mmdet')
FULL, SIZE = 64, (64, 64)
LOAD = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
]
BOXES = [LOAD[0], dict(type='LoadAnnotations', with_bbox=True)]
FLIP = dict(type='RandomFlip', prob=0.5)
FILTER = dict(type='FilterAnnotations', keep_empty=False)
PACK = dict(type='PackDetInputs')
MIXED = [
    dict(type='Mosaic', img_scale=SIZE, pad_val=114.0),
    dict(
        type='RandomAffine', scaling_ratio_range=(0.5, 1.5), border=(-32, -32)
    ),
    dict(type='MixUp', img_scale=SIZE, ratio_range=(0.8, 1.6), pad_val=114.0),
]
CROP = [
    dict(
        type='RandomResize',
        scale=SIZE,
        ratio_range=(0.3, 2.0),
        keep_ratio=True,
    ),
    dict(
        type='RandomCrop',
        crop_type='absolute',
        crop_size=SIZE,
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
]


def choices(sides):
    scales = [(side, 107) for side in sides]
    return dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)


# Of each: the steps, those of the data set inside, and batch augmentations.
PIPELINES = {
    'multi-scale': ([*LOAD, choices([48, 64, 80]), FLIP], None, []),
    'large-scale jitter': (
        [*LOAD, *CROP, FILTER, FLIP],
        None,
        [dict(type='BatchFixedSizePad', size=SIZE, pad_mask=True)],
    ),
    'expanded and cropped': (
        [
            *BOXES,
            dict(type='Expand', mean=[0, 0, 0], ratio_range=(1, 4)),
            dict(type='MinIoURandomCrop', min_crop_size=0.3),
            dict(type='Resize', scale=SIZE, keep_ratio=False),
            FLIP,
        ],
        None,
        [],
    ),
    'mixed, of random sizes': (
        [
            *MIXED,
            FLIP,
            dict(type='Resize', scale=SIZE, keep_ratio=True),
            dict(type='Pad', pad_to_square=True),
            FILTER,
        ],
        BOXES,
        [
            dict(
                type='BatchSyncRandomResize',
                random_size_range=(96, 96),
                interval=1,
            )
        ],
    ),
    'resized, cropped, resized': (
        [
            *LOAD,
            FLIP,
            choices([40, 50, 60]),
            dict(
                type='RandomCrop',
                crop_type='absolute_range',
                crop_size=(38, 60),
                allow_negative_crop=True,
            ),
            choices([48, 56, 64]),
        ],
        None,
        [],
    ),
    'mosaics of instances': (
        [
            *LOAD[:1],
            dict(LOAD[1], poly2mask=False),
            dict(type='CachedMosaic', img_scale=SIZE, pad_val=114.0),
            *CROP,
            dict(type='Pad', size=SIZE, pad_val=dict(img=(114, 114, 114))),
            dict(type='CachedMixUp', img_scale=SIZE, ratio_range=(1.0, 1.0)),
            FILTER,
        ],
        None,
        [],
    ),
}


@pytest.mark.parametrize('kind', PIPELINES)
def test_a_step(kind, detector_config, coco_dataset, enter_scope):
    """With all sizes, and every subnet learning from its ground truth."""
    enter_scope('mmdet')
    steps, inside, augments = PIPELINES[kind]
    np.random.seed(0)
    if inside is None:
        dataset = DATASETS.build(coco_dataset(steps=[*steps, PACK]))
    else:
        dataset = DATASETS.build(
            dict(
                type='MultiImageMixDataset',
                dataset=coco_dataset(steps=inside),
                pipeline=[*steps, PACK],
            )
        )
    config = detector_config(
        dict(widths=(0.5, 0.75, 1.0), resolution=(FULL, 48, 32))
    )
    with_masks = LOAD[1] in steps or 'Cached' in str(steps)
    config.data_preprocessor.batch_augments = augments or None
    if not with_masks:
        del config.roi_head.mask_head, config.roi_head.mask_roi_extractor
        config.wraps = 'FasterRCNN'
        config.data_preprocessor.pad_mask = False
    model = MODELS.build(config).train()
    seen = set()
    for i in range(3):
        MessageHub.get_current_instance().update_info('iter', i)
        batch = pseudo_collate([dataset[j] for j in (i, i + 1)])
        data = model.data_preprocessor(batch, True)
        check_sizes(model, data)
        seen.add(tuple(data['inputs'].shape[2:]))
        total, log = model.parse_losses(model.loss(*data.values()))
        model.zero_grad()
        total.backward()
        assert torch.isfinite(total)
        assert {'fixed1/total', 'fixed2/total'} <= {*log}
        grad = model.backbone.conv1.weight.grad
        assert torch.isfinite(grad).all() and grad.abs().sum() > 0
    if kind in ('multi-scale', 'mixed, of random sizes'):
        assert len(seen) > 1


def check_sizes(model, data):
    """Each image and each of its boxes, by one factor of half."""
    subnet = model.space.smallest
    _, samples = model.task.resize(
        model, *data.values(), subnet, with_truth=True
    )
    for old, new in zip(data['data_samples'], samples):
        for side, half in zip(old.img_shape, new.img_shape):
            assert half == int(side / 2 + 0.5)
        factor = [
            n / o for n, o in zip(new.img_shape[::-1], old.img_shape[::-1])
        ]
        boxes = old.gt_instances.bboxes * torch.tensor(factor * 2)
        sides = boxes[:, 2:] - boxes[:, :2]
        kept = boxes[(sides > 1).all(1)]
        torch.testing.assert_close(new.gt_instances.bboxes, kept)
        if 'masks' in new.gt_instances:
            masks = new.gt_instances.masks
            assert len(masks) == len(kept)
            assert (masks.height, masks.width) == new.batch_input_shape
