"""Small detectors of actions (AVA), and clips with boxes of persons."""

import copy
import csv
import pickle

import cv2
import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from plain_networks import randomise
from torch import nn

CLASSES, SIZES, FRAMES = 20, (64, 48, 40), (4, 3, 2)


def config(backbone, channels, slimmable=True, mutual=None):
    """Config of a stock Fast R-CNN over clips, ours or the stock one.

    Args:
        backbone (dict): As a config of the kind that is wanted has it.
        channels (int): Those of its maps.
    """
    made = dict(
        type='FastRCNN',
        _scope_='mmdet',
        backbone=copy.deepcopy(backbone),
        roi_head=dict(
            type='AVARoIHead',
            bbox_roi_extractor=dict(
                type='SingleRoIExtractor3D',
                roi_layer_type='RoIAlign',
                output_size=4,
                with_temporal_pool=True,
            ),
            bbox_head=dict(
                type='BBoxHeadAVA',
                background_class=True,
                in_channels=channels,
                num_classes=CLASSES + 1,
                multilabel=True,
            ),
        ),
        data_preprocessor=dict(
            type='mmaction.ActionDataPreprocessor', format_shape='NCTHW'
        ),
        train_cfg=dict(
            rcnn=dict(
                assigner=dict(
                    type='MaxIoUAssignerAVA',
                    pos_iou_thr=0.9,
                    neg_iou_thr=0.9,
                    min_pos_iou=0.9,
                ),
                sampler=dict(
                    type='RandomSampler',
                    num=32,
                    pos_fraction=1,
                    neg_pos_ub=-1,
                    add_gt_as_proposals=True,
                ),
                pos_weight=1.0,
            )
        ),
        test_cfg=dict(rcnn=None),
    )
    if slimmable:
        space = dict(width_range=(0.63, 1.0), resolution=SIZES, frames=FRAMES)
        made.update(
            type='mutualnet_mm.MutualLearning',
            wraps='FastRCNN',
            mutual=dict(space, **(mutual or {})),
        )
    return ConfigDict(made)


def build(*args, **kwargs):
    """A detector with weights and statistics that differ."""
    model = randomise(MODELS.build(config(*args, **kwargs)))
    nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=0.05)
    return model


def boxes(number, height, width, seed=0):
    """Boxes of at least eight pixels inside of an image."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 4, generator=generator)
    low = corners[:, :2] * 0.5
    high = low + 0.2 + corners[:, 2:] * 0.3
    sides = torch.tensor([width, height] * 2)
    return torch.cat((low, high), 1) * sides


def batch(number=2, frames=4, size=(64, 64), seed=0, dtype=torch.float):
    """Return preprocessed clips and samples with boxes of persons."""
    from mmaction.structures import ActionDataSample

    generator = torch.Generator().manual_seed(seed)
    clips = torch.randn(number, 3, frames, *size, generator=generator)
    clips = clips.to(dtype)
    samples = []
    for i in range(number):
        truth = boxes(2 + i, *size, seed=seed + i).to(dtype)
        labels = torch.rand(2 + i, CLASSES + 1, generator=generator) > 0.7
        labels[:, 1 + i] = True
        sample = ActionDataSample(
            metainfo=dict(img_shape=size, video_id=f'v{i}', timestamp=i)
        )
        sample.gt_instances = InstanceData(bboxes=truth, labels=labels.float())
        sample.proposals = InstanceData(bboxes=truth + 0.5)
        samples.append(sample)
    return clips, samples


def write_ava(root):
    """Frames of two videos and their annotations, as AVADataset reads them."""
    rng = np.random.default_rng(0)
    rows, boxes = [], {}
    for i, video in enumerate('ab'):
        (root / video).mkdir()
        for frame in range(1, 71):
            image = rng.integers(0, 256, (48, 64, 3), np.uint8)
            cv2.imwrite(str(root / f'{video}/img_{frame:05}.jpg'), image)
        box = [0.1, 0.2, 0.6, 0.9]
        rows += [[video, '0901', *box, label, i] for label in (1, 3 + i)]
        boxes[f'{video},0901'] = np.array([[*box, 0.95]])
    with (root / 'truth.csv').open('w', newline='') as file:
        csv.writer(file).writerows(rows)
    (root / 'excluded.csv').write_text('')
    (root / 'boxes.pkl').write_bytes(pickle.dumps(boxes))
    (root / 'labels.pbtxt').write_text(
        ''.join(
            f'item {{\n  name: "action {i}"\n  id: {i}\n}}\n'
            for i in (1, 3, 4)
        )
    )
    return root


def use_ava(cfg, root):
    """Let a config read what :func:`write_ava` wrote."""
    files = dict(
        ann_file=str(root / 'truth.csv'),
        exclude_file=str(root / 'excluded.csv'),
        label_file=str(root / 'labels.pbtxt'),
    )
    for stage in ('train', 'val', 'test'):
        cfg[f'{stage}_dataloader'].dataset.update(
            files,
            proposal_file=str(root / 'boxes.pkl'),
            data_prefix=dict(img=str(root)),
        )
    cfg.val_evaluator.update(files)
    cfg.test_evaluator.update(files)
