"""Tests of several processes give the metrics of one."""

import faulthandler
import os
from importlib.util import find_spec

import pytest
import torch
import torch.distributed as dist
from forked import run_forked
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import DATASETS, METRICS
from programs import forget_instances
from torch.utils.data import Dataset

from mutualnet_mm.config import make_runner

pytestmark = pytest.mark.subprocess
CALIBRATED, TESTED = 8, 7  # images; the latter not the same on each


@DATASETS.register_module(force=True)
class ImagesOfSeeds(Dataset):
    """Images of noise, each by its number."""

    def __init__(self, number, first=0):
        self.number, self.first = number, first

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        from mmpretrain.structures import DataSample

        generator = torch.Generator().manual_seed(self.first + index)
        image = torch.rand(3, 64, 64, generator=generator) * 255
        return dict(inputs=image, data_samples=DataSample().set_gt_label(0))


@METRICS.register_module(force=True)
class ScoresInOrder(BaseMetric):
    """Every score of every image, in the order of the data set."""

    def process(self, data_batch, data_samples):
        self.results += [s['pred_score'].tolist() for s in data_samples]

    def compute_metrics(self, results):
        return {
            f'{i}/{j}': score
            for i, scores in enumerate(results)
            for j, score in enumerate(scores)
        }


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where all files go, also those by which ranks hand over results."""
    monkeypatch.chdir(tmp_path)


def work(rank, number, cfgs):
    faulthandler.dump_traceback_later(400)  # should it ever hang
    dist.init_process_group(
        'gloo',
        init_method=f'file://{os.getcwd()}/rendezvous',
        rank=rank,
        world_size=number,
    )
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number)
    )
    found = {name: measured(cfg, 'pytorch') for name, cfg in cfgs.items()}
    torch.save(found, f'{rank}.pth')
    dist.destroy_process_group()


def measured(settings, launcher):
    cfg = Config(dict(settings, launcher=launcher))
    cfg.work_dir = f'work_{launcher}'
    forget_instances()
    try:
        return make_runner(cfg).test()
    finally:
        forget_instances()


def loader(dataset, batch_size):
    return dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dataset,
    )


def settings_of(scope, config, weights, tested, calibrated, **settings):
    torch.save(dict(state_dict=weights), f'{scope}.pth')
    # Batches of one image, which are the same ones however they are shared;
    # in larger ones of a detector, images are padded to the largest.
    hook = dict(
        type='mutualnet_mm.BNCalibrationHook', dataloader=loader(calibrated, 1)
    )
    return dict(
        default_scope=scope,
        model=config,
        load_from=f'{scope}.pth',
        test_dataloader=loader(tested, 1 if scope == 'mmdet' else 2),
        custom_hooks=[hook],
        default_hooks=dict(),
        log_level='ERROR',
        randomness=dict(seed=0),
        **settings,
    )


@pytest.fixture
def classification(classifier_config, build_classifier):
    return settings_of(
        'mmpretrain',
        classifier_config(),
        build_classifier().state_dict(),
        dict(type='ImagesOfSeeds', number=TESTED),
        dict(type='ImagesOfSeeds', number=CALIBRATED, first=100),
        test_evaluator=dict(type='ScoresInOrder'),
        test_cfg=dict(
            type='mutualnet_mm.SubnetTestLoop',
            subnets=['1.0x-64', '0.5x-48', '0.25x-48'],
        ),
    )


@pytest.fixture
def detection(detector_config, build_detector, coco_dataset, tiny_coco):
    config = detector_config()
    # Boxes of a network that was not trained, as many as it finds.
    config.test_cfg.rcnn.update(score_thr=0.0, max_per_img=40)
    truth = str(tiny_coco / 'val.json')
    return settings_of(
        'mmdet',
        config,
        build_detector().state_dict(),
        coco_dataset('val'),
        coco_dataset('train'),
        test_evaluator=dict(type='CocoMetric', ann_file=truth, metric='bbox'),
        test_cfg=dict(
            type='mutualnet_mm.SubnetTestLoop', subnets=['1.0x-64', '0.5x-48']
        ),
    )


def check(cfgs, number):
    run_forked(work, number, cfgs, processes=number, seconds=400)
    ranks = [torch.load(f'{rank}.pth') for rank in range(number)]
    for name, cfg in cfgs.items():
        expected = measured(cfg, 'none')
        for rank in ranks:
            assert rank[name].keys() == expected.keys()
            for key, value in expected.items():
                found = rank[name][key]
                assert found == pytest.approx(value, abs=1e-4), (name, key)


def test_metrics_of_two(request):
    """7 images on 2 ranks: one is tested twice and counts once."""
    cfgs = {
        name: request.getfixturevalue(name)
        for name, scope in (
            ('classification', 'mmpretrain'),
            ('detection', 'mmdet'),
        )
        if find_spec(scope)
    }
    if not cfgs:
        pytest.skip('needs mmpretrain or mmdet')
    check(cfgs, 2)


@pytest.mark.nightly
def test_metrics_of_four(classification):
    check(dict(classification=classification), 4)
