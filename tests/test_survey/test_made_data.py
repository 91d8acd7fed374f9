"""Generated data, read by the stock data sets and transforms."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS

from mutualnet_mm import UsageError
from mutualnet_mm.survey.made_data import use_made_data


def made(tmp_path, dataset, num_classes=80):
    """A config whose data sets were replaced."""
    cfg = Config(
        dict(
            model=dict(type='A', head=dict(num_classes=num_classes)),
            train_dataloader=dict(dataset=dataset),
        )
    )
    use_made_data(cfg, tmp_path)
    return cfg.train_dataloader.dataset


LOAD_COCO = [
    dict(type='LoadImageFromFile'),
    dict(
        type='LoadAnnotations', with_bbox=True, with_mask=True, with_seg=True
    ),
]


@pytest.mark.parametrize(
    'kind', ['CocoDataset', 'LVISV1Dataset', 'CityscapesDataset', 'VOCDataset']
)
def test_boxes_masks_and_maps(kind, enter_scope, tmp_path):
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    dataset = dict(type=kind, ann_file='no.json', pipeline=LOAD_COCO)
    sample = DATASETS.build(made(tmp_path, dataset))[1]
    h, w = sample['img'].shape[:2]
    boxes = sample['gt_bboxes'].tensor.numpy()
    assert len(boxes) == 2 and (boxes[:, 2:] > boxes[:, :2]).all()
    assert sample['gt_bboxes_labels'].tolist() == [2, 0]  # the 3rd and 4th
    for box, mask in zip(boxes.astype(int), sample['gt_masks'].masks):
        rows, columns = np.nonzero(mask)
        found = columns.min(), rows.min(), columns.max(), rows.max()
        assert np.abs(np.array(found) - box).max() <= 1
        inside = sample['img'][box[1] : box[3], box[0] : box[2]]
        assert inside.mean() > sample['img'].mean()
    assert sample['gt_seg_map'].shape == (h, w)


def test_labels_are_classes_of_the_head(enter_scope, tmp_path):
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    dataset = dict(
        type='CocoDataset',
        pipeline=LOAD_COCO[:1]
        + [dict(type='LoadAnnotations', with_bbox=True)],
    )
    built = DATASETS.build(made(tmp_path, dataset, num_classes=1))
    labels = [built[i]['gt_bboxes_labels'] for i in range(len(built))]
    assert set(np.concatenate(labels)) == {0}


def test_proposals(enter_scope, tmp_path):
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    steps = [*LOAD_COCO, dict(type='LoadProposals', num_max_proposals=5)]
    dataset = dict(type='CocoDataset', proposal_file='a.pkl', pipeline=steps)
    sample = DATASETS.build(made(tmp_path, dataset))[0]
    given = np.asarray(sample['proposals'])
    assert np.allclose(given, sample['gt_bboxes'].tensor.numpy())


def test_wrappers_and_filters_stay(enter_scope, tmp_path):
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    leaf = dict(
        type='CocoDataset',
        pipeline=[],
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
    )
    wrapped = dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(type='ConcatDataset', datasets=[leaf, leaf]),
    )
    found = made(tmp_path, wrapped)
    assert found.times == 3 and len(found.dataset.datasets) == 2
    assert found.dataset.datasets[0].filter_cfg == leaf['filter_cfg']
    assert len(DATASETS.build(found)) == 3 * 2 * 4


@pytest.mark.parametrize(
    'kind, shape', [('ImageNet', (96, 128, 3)), ('CIFAR10', (32, 32, 3))]
)
def test_folders_of_images(kind, shape, enter_scope, tmp_path):
    pytest.importorskip('mmpretrain')
    enter_scope('mmpretrain')
    steps = [dict(type='LoadImageFromFile')] * (kind == 'ImageNet')
    dataset = dict(type=kind, data_prefix='no', pipeline=steps)
    built = DATASETS.build(made(tmp_path, dataset))
    assert built[0]['img'].shape == shape
    assert {built[i]['gt_label'] for i in range(len(built))} == {0, 1}


def test_several_labels(enter_scope, tmp_path):
    pytest.importorskip('mmpretrain')
    enter_scope('mmpretrain')
    steps = [dict(type='LoadImageFromFile')]
    dataset = dict(type='VOC', data_root='no', pipeline=steps)
    sample = DATASETS.build(made(tmp_path, dataset, 20))[0]
    assert sample['gt_label'] == [0, 1, 2] and sample['img'].ndim == 3


SAMPLE = dict(type='SampleFrames', clip_len=4, num_clips=1)


@pytest.mark.parametrize(
    'dataset, shape',
    [
        (
            dict(
                type='VideoDataset',
                pipeline=[
                    dict(type='mmaction.OpenCVInit'),
                    SAMPLE,
                    dict(type='OpenCVDecode'),
                ],
            ),
            (48, 64, 3),
        ),
        (
            dict(
                type='RawframeDataset',
                pipeline=[SAMPLE, dict(type='RawFrameDecode')],
            ),
            (48, 64, 3),
        ),
        (
            dict(
                type='RawframeDataset',
                modality='Flow',
                filename_tmpl='{}_{:05}.jpg',
                pipeline=[SAMPLE, dict(type='RawFrameDecode')],
            ),
            (48, 64, 2),
        ),
    ],
)
def test_videos(dataset, shape, enter_scope, tmp_path):
    pytest.importorskip('mmaction')
    enter_scope('mmaction')
    built = DATASETS.build(made(tmp_path, dataset))
    clip = built[1]
    assert len(clip['imgs']) == 4
    assert clip['imgs'][0].shape == shape and clip['label'] == 1


@pytest.mark.parametrize(
    'steps, joints, axes',
    [
        ([dict(type='PoseDecode')], 17, 2),
        ([dict(type='GenSkeFeat', dataset='coco')], 17, 2),
        (
            [
                dict(type='PreNormalize3D'),
                dict(type='GenSkeFeat', dataset='nturgb+d'),
            ],
            25,
            3,
        ),
    ],
)
def test_skeletons(steps, joints, axes, enter_scope, tmp_path):
    pytest.importorskip('mmaction')
    enter_scope('mmaction')
    dataset = dict(type='PoseDataset', split='xsub', pipeline=steps)
    settings = dict(made(tmp_path, dataset), pipeline=[])
    pose = DATASETS.build(settings)[0]
    assert pose['keypoint'].shape == (1, 64, joints, axes)
    pose.update(frame_inds=np.arange(8))
    for step in steps:
        assert TRANSFORMS.build(step)(pose) is not None


@pytest.mark.parametrize('kind', ['AVADataset', 'AVAKineticsDataset'])
def test_persons_who_act(kind, enter_scope, tmp_path):
    pytest.importorskip('mmaction')
    enter_scope('mmaction')
    sample = dict(type='SampleAVAFrames', clip_len=4, frame_interval=16)
    pipeline = [sample, dict(type='RawFrameDecode')]
    dataset = dict(type=kind, pipeline=pipeline, num_classes=81)
    built = DATASETS.build(made(tmp_path, dataset))
    assert len(built) == 4
    clip = built[1]
    assert len(clip['imgs']) == 4 and clip['imgs'][0].shape == (48, 64, 3)
    assert clip['proposals'].shape == clip['gt_bboxes'].shape == (1, 4)
    assert np.flatnonzero(clip['gt_labels'][0]).tolist() == [1, 3, 4]


def test_several_loaders(tmp_path):
    """They took the places that the config names, and no made data."""
    loader = dict(dataset=dict(type='ImageNet', data_root='data/imagenet'))
    cfg = Config(
        dict(
            model=dict(type='A', head=dict(num_classes=3)),
            val_dataloader=[loader, loader],
        )
    )
    use_made_data(cfg, tmp_path)
    roots = [one.dataset.data_root for one in cfg.val_dataloader]
    assert all(Path(root).is_relative_to(tmp_path) for root in roots)


def test_data_that_the_survey_does_not_make(tmp_path):
    with pytest.raises(UsageError, match='makes no data for a AudioDataset'):
        made(tmp_path, dict(type='AudioDataset', pipeline=[]))
