"""A project in another folder, made adaptive and run by the stock tools."""

import json
from pathlib import Path

import pytest
from programs import run_program

ROOT = Path(__file__).parents[1]
# Of a project that has a transform of its own.
TRANSFORMS = """
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

@TRANSFORMS.register_module()
class CountImages(BaseTransform):
    number = 0

    def transform(self, results):
        CountImages.number += 1
        return results
"""
BASE = """
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
"""
CONFIG = """
_base_ = '../base.py'
custom_imports = dict(imports='own_transforms', allow_failed_imports=False)
model = dict(
    backbone=dict(base_channels=8, stem_channels=8, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(
        num_classes=10, in_channels=16, feat_channels=16, stacked_convs=1),
    test_cfg=dict(score_thr=0.0, max_per_img=5))
resize = dict(type='Resize', scale=(192, 128), keep_ratio=True)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    resize,
    dict(type='CountImages'),
    dict(type='PackDetInputs')]
scenes = dict(
    data_root='scenes', metainfo=dict(classes=tuple('0123456789')),
    pipeline=pipeline)
train_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'), **scenes))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'), **scenes))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='scenes/annotations/instances_val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
custom_hooks = [dict(type='CheckInvalidLossHook', interval=1)]
"""


@pytest.mark.slow
def test_from_the_stock_config_to_the_table(tmp_path, monkeypatch):
    mmdet = pytest.importorskip('mmdet')
    from mutualnet_mm.datasets.digit_scenes import make_digit_scenes

    make_digit_scenes(tmp_path / 'scenes', num_train=4, num_val=2)
    (tmp_path / 'own_transforms.py').write_text(TRANSFORMS)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'configs/digits.py').write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    new = 'configs/mutual-digits.py'
    make = ROOT / 'tools/make_adaptive.py'
    done = run_program(make, 'configs/digits.py', '--out', new)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2].startswith('proven: ')

    stock = Path(mmdet.__file__).parent / '.mim/tools'
    done = run_program(stock / 'train.py', new, '--work-dir', 'work')
    assert done.returncode == 0, done.stderr
    done = run_program(
        *(stock / 'test.py', new, 'work/epoch_1.pth', '--work-dir', 'tested')
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(next(Path('tested').glob('*/*.json')).read_text())
    assert {'coco/bbox_mAP', '0.25x-64/coco/bbox_mAP'} <= set(metrics)

    done = run_program(
        *(ROOT / 'tools/build_table.py', new, 'work/epoch_1.pth'),
        *('--out', 'table', '--subnet', '1.0x-128', '0.5x-96'),
    )
    assert done.returncode == 0, done.stderr
    entries = json.loads(Path('table/table.json').read_text())['entries']
    assert [e['subnet'] for e in entries] == ['1.0x-128', '0.5x-96']

    import own_transforms

    assert own_transforms.CountImages.number > 0
