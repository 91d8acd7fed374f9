"""Pipelines that stock hooks switch in mid-training."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mutualnet_mm.config import check_resolution
from mutualnet_mm.engine import BNCalibrationHook


@pytest.fixture
def train(tmp_path):
    """Train for two epochs; return the sizes that the backbone saw."""

    def run(scope, model, loader, hook, metric):
        cfg = Config(
            dict(
                default_scope=scope,
                model=model,
                train_dataloader=loader('train'),
                val_dataloader=loader('val'),
                train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=2),
                val_cfg=dict(type='mutualnet_mm.SubnetValLoop'),
                val_evaluator=metric,
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
                custom_hooks=[
                    hook,
                    dict(type='mutualnet_mm.BNCalibrationHook', num_batches=1),
                ],
                work_dir=str(tmp_path / 'work'),
                experiment_name=scope,
                log_level='ERROR',
            )
        )
        check_resolution(cfg)
        runner = Runner.from_cfg(cfg)
        seen = []

        def note(net, args):
            if net.training:
                seen.append(tuple(args[0].shape[2:]))

        runner.model.backbone.register_forward_pre_hook(note)
        metrics = runner.train() and runner.val()
        assert all(map(np.isfinite, metrics.values()))
        # Calibration after a training reads what it read in the last one.
        recipe = BNCalibrationHook(num_batches=1)
        (live,) = recipe.batches(runner)
        (later,) = recipe.batches_of(cfg)
        for a, b in zip(live['inputs'], later['inputs']):
            assert torch.equal(a, b)
        return seen

    return run


def test_crops_that_grow(train, classifier_config, enter_scope, tmp_path):
    """Of a classifier, by ``SwitchRecipeHook``, with batch augmentation."""
    enter_scope('mmpretrain')
    rng = np.random.default_rng(0)
    for name in 'ab':
        (tmp_path / 'images' / name).mkdir(parents=True)
        for i in range(2):
            image = rng.integers(0, 256, (70, 60, 3), np.uint8)
            file = tmp_path / 'images' / name / f'{i}.png'
            cv2.imwrite(str(file), image)

    def steps(side):
        return [
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=side),
            dict(type='PackInputs'),
        ]

    def loader(split):
        return dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='CustomDataset',
                data_root=str(tmp_path / 'images'),
                pipeline=steps(40 if split == 'train' else 64),
            ),
        )

    model = classifier_config(dict(widths=(0.5, 1.0), resolution=(64, 32)))
    model['data_preprocessor'] = dict(num_classes=4)
    recipe = dict(
        action_epoch=2,
        train_pipeline=steps(64),
        batch_augments=dict(augments=[dict(type='Mixup', alpha=0.5)]),
    )
    hook = dict(type='SwitchRecipeHook', schedule=[recipe])
    seen = train(
        'mmpretrain', model, loader, hook, dict(type='Accuracy', topk=1)
    )
    full, subnet = seen[::2], seen[1::2]
    assert full == [(40, 40), (64, 64)]
    for before, after in zip(full, subnet):
        assert after in (before, tuple(side // 2 for side in before))


def test_mosaics_that_end(
    train, detector_config, coco_dataset, detection_pipeline, tiny_coco
):
    """Of a detector, by ``PipelineSwitchHook``."""
    load, truth, resize, pack = detection_pipeline(scale=(64, 64))
    mosaic = dict(type='CachedMosaic', img_scale=(40, 40), max_cached_images=4)

    def loader(split):
        steps = [load, truth, mosaic, pack]
        if split == 'val':
            steps = [load, resize, truth, pack]
        return dict(
            batch_size=3,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=coco_dataset(split, steps),
        )

    hook = dict(
        type='PipelineSwitchHook',
        switch_epoch=1,
        switch_pipeline=[load, truth, resize, pack],
    )
    metric = dict(type='CocoMetric', ann_file=str(tiny_coco / 'val.json'))
    model = detector_config(dict(widths=(0.5, 1.0), resolution=(64, 32)))
    seen = train('mmdet', model, loader, hook, metric)
    # Two batches an epoch: mosaics of 80 x 80 pixels, padded; then images.
    assert seen[::2] == [(96, 96), (96, 96), (64, 64), (64, 64)]
    assert {*seen[1::2]} <= {(96, 96), (64, 64), (32, 32)}
