"""Plain networks, small classifiers and runs that several test files share."""

import copy
import itertools
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import DATASETS, METRICS
from mmengine.runner import Runner
from torch.utils.data import Dataset

NUMBER = 8
_numbers = itertools.count()


@DATASETS.register_module(force=True)
class NoiseImages(Dataset):
    """Images of noise with a label each."""

    def __len__(self):
        return NUMBER

    def __getitem__(self, index):
        from mmpretrain.structures import DataSample

        generator = torch.Generator().manual_seed(index)
        image = torch.randn(3, 32, 32, generator=generator)
        sample = DataSample().set_gt_label(index % 4)
        return dict(inputs=image, data_samples=sample)


@METRICS.register_module(force=True)
class Scores(BaseMetric):
    """Keeps every score that was predicted."""

    default_prefix = 'score'

    def process(self, data_batch, data_samples):
        self.results += [sample['pred_score'] for sample in data_samples]

    def compute_metrics(self, results):
        scores = torch.stack(results).flatten()
        return {str(i): score.item() for i, score in enumerate(scores)}


@pytest.fixture(scope='session')
def plain():
    """Return the helpers of plain_networks.py, which is on no path."""
    file = Path(__file__).with_name('plain_networks.py')
    spec = spec_from_file_location(file.stem, file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def configure(enter_scope):
    """Return the config of a WRN-10-1 classifier, ours or the stock one."""
    enter_scope('mmpretrain')

    def make(head, mutual=None, stock=False, **settings):
        space = dict(width=(0.25, 1.0), resolution=(32, 24, 16))
        ours = dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=dict(space, **(mutual or {})),
        )
        kind = 'WideResNet' if stock else 'SlimmableWideResNet'
        return dict(
            dict(type='ImageClassifier') if stock else ours,
            backbone=dict(
                type=f'mutualnet_mm.{kind}', depth=10, widen_factor=1
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(dict(num_classes=4, in_channels=64), **head),
            **copy.deepcopy(settings),  # stock code writes into its lists
        )

    return make


@pytest.fixture
def build_runner(tmp_path):
    """Return a runner on 8 images of noise, in a fixed order.

    It trains for three iterations and keeps a checkpoint of the last.
    """

    def loader(size, sampler='DefaultSampler'):
        return dict(
            batch_size=size,
            num_workers=0,
            sampler=dict(type=sampler, shuffle=False),
            dataset=dict(type='NoiseImages'),
        )

    def make(custom_hooks=(), **settings):
        cfg = dict(
            default_scope='mmpretrain',
            experiment_name=f'run{next(_numbers)}',
            work_dir=str(tmp_path / 'work'),
            train_dataloader=loader(4, 'InfiniteSampler'),
            val_dataloader=loader(3),
            val_evaluator=dict(type='Scores'),
            train_cfg=dict(by_epoch=False, max_iters=3, val_interval=3),
            custom_hooks=[
                *custom_hooks,
                # All images in one batch: the statistics are its own.
                dict(
                    type='mutualnet_mm.BNCalibrationHook',
                    dataloader=loader(NUMBER),
                ),
            ],
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook', by_epoch=False, interval=3
                )
            ),
            log_level='ERROR',
            randomness=dict(seed=0),
        )
        return Runner.from_cfg(Config(dict(cfg, **settings)))

    return make
