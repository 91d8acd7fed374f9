"""Every detection config trains and evaluates a subnet, made small.

Images are smaller, and layers have an eighth of the channels, unless the
config is thin by itself.
"""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from thin_detectors import thin

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
DETECTION = [
    CONFIGS / 'mutual_mask_rcnn_vgg16.py',
    *sorted((CONFIGS / 'detection').glob('*.py')),
]


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    pytest.importorskip('pycocotools')
    from mutualnet_mm.datasets.digit_scenes import make_digit_scenes

    out = tmp_path_factory.mktemp('scenes')
    return make_digit_scenes(out, num_train=4, num_val=2)


def dicts(node):
    """All dicts below ``node``."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from dicts(item)


def shrink(cfg, full):
    """Bring every resolution of the config down, the full one to ``full``."""
    mutual = cfg.model.mutual
    old = mutual.resolution[0]
    scaled = {r: round(full * r / old) for r in mutual.resolution}
    mutual.resolution = list(scaled.values())
    for step in dicts([cfg.train_dataloader, cfg.test_dataloader]):
        if step.get('type') == 'Resize':
            step.scale = (full * 3 // 2, full)
        elif step.get('type') == 'mutualnet_mm.MultiResolution':
            step.resolution = list(scaled.values())
    cfg.model.backbone.pop('init_cfg', None)


def run(cfg, tmp_path):
    """Train one iteration, then test the smallest subnet."""
    for name in ('train_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False, batch_size=2)
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.logger.interval = 1
    cfg.custom_hooks = [
        dict(type='mutualnet_mm.BNCalibrationHook', num_batches=1)
    ]
    resolution = cfg.model.mutual.resolution[-1]
    width = min(cfg.model.mutual.get('widths') or cfg.model.mutual.width_range)
    cfg.test_cfg.subnets = [f'{width}x-{resolution}']
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 1
    assert np.isfinite(runner.message_hub.get_scalar('train/loss').current())
    return runner.test()


@pytest.mark.sweep(3)
@pytest.mark.slow
@pytest.mark.parametrize('path', DETECTION, ids=lambda path: path.stem)
def test_detection(path, scenes, tmp_path):
    pytest.importorskip('mmdet')
    cfg = Config.fromfile(path)
    if '-thin_' not in path.stem:
        shrink(cfg, 128)
        thin(cfg.model)
    split = dict(train_dataloader='train', test_dataloader='val')
    for name, part in split.items():
        dataset = cfg[name].dataset
        dataset.get('dataset', dataset).update(  # of mixed images, or alone
            data_root=str(scenes),
            ann_file=f'annotations/instances_{part}.json',
            data_prefix=dict(img=f'{part}/'),
            metainfo=dict(classes=tuple('0123456789')),
        )
    cfg.test_evaluator.ann_file = str(
        scenes / 'annotations/instances_val.json'
    )
    for part in dicts(cfg.model):
        if 'num_classes' in part:
            part.num_classes = 10
    train, test = cfg.model.train_cfg, cfg.model.test_cfg
    if 'rpn' in test:
        train.rpn_proposal.max_per_img = test.rpn.max_per_img = 20
        train.rcnn.sampler.num = 8
    # An untrained network is sure of nothing.
    test.get('rcnn', test).score_thr = 0.0
    metrics = run(cfg, tmp_path)
    assert any(key.endswith('coco/bbox_mAP') for key in metrics)
