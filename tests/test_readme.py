"""The drop-in examples of the pages, run as they are on stock pipelines."""

import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from thin_detectors import BY, thin

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
PAGE = (ROOT / 'docs/adaptive_config.md').read_text(encoding='utf-8')
# Of a detector, a classifier and a video recognizer.
EXAMPLES = re.findall(r'```python\n(.*?)```', PAGE, re.S)


def test_the_readme_shows_one_of_them():
    assert re.search(r'```python\n(.*?)```', README, re.S)[1] == EXAMPLES[1]


def test_counts_of_configs():
    for project in ('mmpretrain', 'mmdet', 'mmaction'):
        page = (ROOT / f'docs/coverage/{project}.md').read_text('utf-8')
        of, works = re.search(
            r'^Of (\d+) configs.* (\d+) \(', page, re.M
        ).groups()
        assert re.search(rf'\b{works} of {of} of {project}2?\b', README)


@pytest.mark.slow
def test_drop_in_example(tmp_path):
    mmdet = pytest.importorskip('mmdet')
    from mmdet.models import MaskRCNN

    from mutualnet_mm.datasets.digit_scenes import make_digit_scenes

    (tmp_path / 'example.py').write_text(EXAMPLES[0])
    cfg = Config.fromfile(tmp_path / 'example.py')

    # Only data, paths and the number of channels are ours; weights would
    # have to be downloaded.
    thin(cfg.model)
    scenes = make_digit_scenes(tmp_path / 'scenes', num_train=2, num_val=1)
    for name, split in (
        ('train_dataloader', 'train'),
        ('test_dataloader', 'val'),
    ):
        cfg[name].update(num_workers=0, persistent_workers=False, batch_size=1)
        cfg[name].dataset.update(
            data_root=str(scenes),
            ann_file=f'annotations/instances_{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=tuple('0123456789')),
        )
    annotations = str(scenes / 'annotations/instances_val.json')
    cfg.test_evaluator.ann_file = annotations
    for head in ('bbox_head', 'mask_head'):
        cfg.model.roi_head[head].num_classes = 10
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    cfg.model.backbone.init_cfg = None
    cfg.work_dir = str(tmp_path / 'work')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None

    stock = Path(mmdet.__file__).parent / '.mim/configs/mask_rcnn'
    stock = Config.fromfile(stock / 'mask-rcnn_r50_fpn_2x_coco.py')
    for name in ('train_dataloader', 'test_dataloader'):
        assert cfg[name].dataset.pipeline == stock[name].dataset.pipeline

    runner = Runner.from_cfg(cfg)
    assert isinstance(runner.model, MaskRCNN)
    runner.train()
    assert np.isfinite(runner.message_hub.get_scalar('train/loss').current())
    metrics = runner.test()
    assert 'coco/bbox_mAP' in metrics and '0.5x-480/coco/segm_mAP' in metrics


@pytest.mark.slow
def test_classifier_example(tmp_path):
    pytest.importorskip('mmpretrain')
    import cv2
    from mmpretrain.models import ImageClassifier

    (tmp_path / 'example.py').write_text(EXAMPLES[1])
    cfg = Config.fromfile(tmp_path / 'example.py')
    rng = np.random.default_rng(0)
    for name in 'ab':
        (tmp_path / 'images' / name).mkdir(parents=True)
        image = rng.integers(0, 256, (240, 250, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'images/{name}/0.png'), image)
    for name in ('train_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False, batch_size=2)
        cfg[name].dataset = dict(
            type='CustomDataset',
            data_root=str(tmp_path / 'images'),
            pipeline=cfg[name].dataset.pipeline,
        )
    cfg.work_dir = str(tmp_path / 'work')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = Runner.from_cfg(cfg)
    assert isinstance(runner.model, ImageClassifier)
    assert runner.model.supervision == 'kl'
    runner.train()
    assert np.isfinite(runner.message_hub.get_scalar('train/loss').current())
    metrics = runner.test()
    assert 'accuracy/top1' in metrics and '0.7x-128/accuracy/top5' in metrics


@pytest.mark.slow
def test_video_example(tmp_path):
    pytest.importorskip('mmaction')
    import cv2
    from mmaction.models import Recognizer3D

    (tmp_path / 'example.py').write_text(EXAMPLES[2])
    cfg = Config.fromfile(tmp_path / 'example.py')
    writer = cv2.VideoWriter(
        str(tmp_path / 'clip.mp4'),
        cv2.VideoWriter_fourcc(*'mp4v'),
        25,
        (96, 72),
    )
    rng = np.random.default_rng(0)
    for _ in range(30):
        writer.write(rng.integers(0, 256, (72, 96, 3), np.uint8))
    writer.release()
    (tmp_path / 'list.txt').write_text('clip.mp4 7\n')
    for name in ('train_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False, batch_size=1)
        cfg[name].dataset.update(
            ann_file=str(tmp_path / 'list.txt'),
            data_prefix=dict(video=str(tmp_path)),
        )
    # Only to be quicker: an eighth of the channels, 3 views of 10 x 3.
    cfg.model.backbone.base_channels = 64 // BY
    cfg.model.cls_head.in_channels //= BY
    sample = cfg.test_dataloader.dataset.pipeline[1]
    assert (sample.type, sample.num_clips) == ('SampleFrames', 10)
    sample.num_clips = 1
    cfg.model.backbone.pretrained = None
    cfg.work_dir = str(tmp_path / 'work')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.param_scheduler = cfg.auto_scale_lr = None
    runner = Runner.from_cfg(cfg)
    assert isinstance(runner.model, Recognizer3D)
    assert runner.model.supervision == 'kl'
    runner.train()
    assert np.isfinite(runner.message_hub.get_scalar('train/loss').current())
    metrics = runner.test()
    assert 'acc/top1' in metrics and '0.63x-142-3/acc/top5' in metrics
