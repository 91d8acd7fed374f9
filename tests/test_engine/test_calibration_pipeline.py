"""Calibration on images as they are tested."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

from mutualnet_mm import ConfigError
from mutualnet_mm.engine import BNCalibrationHook

MIRRORED = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='RandomFlip', prob=1.0),
    dict(type='PackDetInputs'),
]
TESTED = [step for step in MIRRORED if step['type'] != 'RandomFlip']


@pytest.fixture
def make_config(coco_dataset, enter_scope):
    pytest.importorskip('mmdet')
    enter_scope('mmdet')

    def make(wrap=lambda dataset: dataset, test=None):
        loader = dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
        )
        tested = coco_dataset('val', TESTED) if test is None else test
        return Config(
            dict(
                train_dataloader=dict(
                    loader, dataset=wrap(coco_dataset('train', MIRRORED))
                ),
                test_dataloader=dict(loader, dataset=tested),
            )
        )

    return make


def repeated(dataset):
    return dict(type='RepeatDataset', times=1, dataset=dataset)


def joined(dataset):
    return dict(type='ConcatDataset', datasets=[dataset, dataset])


def mixed(dataset):
    steps = dataset['pipeline']
    inner = dict(dataset, pipeline=steps[:2])
    mosaic = dict(type='Mosaic', img_scale=(64, 64))
    return dict(
        type='MultiImageMixDataset',
        dataset=inner,
        pipeline=[mosaic, *steps[2:]],
    )


@pytest.mark.parametrize(
    'wrap', [dict, repeated, joined, mixed, lambda d: repeated(mixed(d))]
)
def test_images_as_they_are_tested(make_config, coco_dataset, wrap):
    """Those of the training, by no other steps than the test pipeline's."""
    cfg = make_config(wrap)
    hook = BNCalibrationHook(num_batches=3, pipeline='test')
    found = list(hook.batches_of(cfg))
    stock = DATASETS.build(coco_dataset('train', TESTED))
    expected = {s['data_samples'].img_path: s['inputs'] for s in stock}
    assert len(found) == 3
    for ours in found:
        for image, sample in zip(ours['inputs'], ours['data_samples']):
            assert torch.equal(image, expected[sample.img_path])
            assert not sample.get('flip')
    # Nothing that the training reads was changed.
    (batch, *_) = BNCalibrationHook(3).batches_of(cfg, hook._dataset)
    assert batch['data_samples'][0].flip


def test_a_data_set_with_a_name(make_config, coco_dataset):
    dataset = DATASETS.build(coco_dataset('train', MIRRORED))
    dataset.dataset = 'digits'
    hook = BNCalibrationHook(1, pipeline='test')
    (batch,) = hook.batches_of(make_config(), dataset)
    assert not any(s.get('flip') for s in batch['data_samples'])


class ReadsByItself(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return index


def test_what_cannot_be_read_so(make_config):
    hook = BNCalibrationHook(pipeline='test')
    with pytest.raises(ConfigError, match='no test_dataloader.dataset.pipel'):
        list(hook.batches_of(make_config(test=dict(type='Any'))))
    with pytest.raises(ConfigError, match='ReadsByItself has no pipeline'):
        list(hook.batches_of(make_config(), ReadsByItself()))


@pytest.mark.parametrize(
    'settings', [dict(pipeline='val'), dict(full=True), dict(full='both')]
)
def test_settings(settings):
    (name, value), *_ = settings.items()
    with pytest.raises(ConfigError, match=f'{name}={value!r}: use'):
        BNCalibrationHook(**settings)


def test_settings_make_it_again():
    settings = dict(
        num_batches=3,
        dataloader=dict(dataset=[]),
        pipeline='test',
        full='calibrated',
    )
    hook = BNCalibrationHook(**settings)
    assert hook.settings == settings
    assert BNCalibrationHook(**hook.settings).settings == settings
