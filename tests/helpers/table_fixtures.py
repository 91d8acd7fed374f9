"""A small classifier, its images and a metric that counts."""

import copy
import itertools

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from mmengine.runner import Runner

from mutualnet_mm import Subnet

_numbers = itertools.count()


@METRICS.register_module(force=True)
class ScoreSums(BaseMetric):
    """Any change of the network or of the images shows in it."""

    default_prefix = 'sums'
    processed: list = []  # images, batch by batch
    computed: list = []
    interruption = None  # called with the counts of both

    def process(self, data_batch, data_samples):
        self.processed.append([s['img_path'] for s in data_samples])
        self._interrupt()
        self.results += [
            s['pred_score'].double().pow(2).sum().item() for s in data_samples
        ]

    def compute_metrics(self, results):
        self.computed.append(len(results))
        self._interrupt()
        return dict(
            squares=sum(results), nothing=float('nan'), each=list(results)
        )

    def _interrupt(self):
        if ScoreSums.interruption:
            ScoreSums.interruption(len(self.processed), len(self.computed))


@pytest.fixture
def score_sums():
    """The metric's class, which counts what it is given."""
    ScoreSums.processed, ScoreSums.computed = [], []
    yield ScoreSums
    ScoreSums.interruption = None


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for split, count in (('train', 8), ('test', 12)):
        for i in range(count):
            folder = root / split / str(i % 4)
            folder.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 200, (32, 32, 3), np.uint8)
            image[..., i % 3] += 50
            cv2.imwrite(str(folder / f'{i}.png'), image)
    return root


@pytest.fixture
def make_config(score_sums, classifier_config, pictures, tmp_path):
    """Return the config of a small classifier and its images."""

    def make(**settings):
        def loader(split):
            return dict(
                batch_size=4,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
                dataset=dict(
                    type='CustomDataset',
                    data_root=str(pictures / split),
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type='PackInputs'),
                    ],
                ),
            )

        cfg = dict(
            default_scope='mmpretrain',
            experiment_name=f'build{next(_numbers)}',
            work_dir=str(tmp_path / 'work'),
            launcher='none',
            model=classifier_config(dict(resolution=(32, 16))),
            train_dataloader=loader('train'),
            test_dataloader=loader('test'),
            test_evaluator=[dict(type='ScoreSums'), dict(type='Accuracy')],
            train_cfg=dict(by_epoch=True, max_epochs=1),
            test_cfg=dict(type='mutualnet_mm.SubnetTestLoop', group_size=3),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(),
            log_level='ERROR',
        )
        cfg.update(settings)
        return Config(copy.deepcopy(cfg))

    return make


@pytest.fixture
def weights(build_classifier):
    """With running statistics that are not the initial ones."""
    model = build_classifier(dict(resolution=(32, 16))).train()
    torch.nn.init.normal_(model.head.fc.weight)
    with torch.no_grad():
        for _ in range(4):
            model.backbone(torch.randn(4, 3, 32, 32) * 2)
    return model.state_dict()


@pytest.fixture
def checkpoint(weights, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=weights), path)
    return str(path)


@pytest.fixture
def stock_test(make_config):
    """Run the stock loop with what a file holds, and nothing of ours."""

    def run(adaptive, subnet, **settings):
        subnet = Subnet.parse(subnet)
        cfg = make_config(test_cfg=dict(type='TestLoop'), **settings)
        cfg.model = Config.fromstring(adaptive.config, '.py').model
        runner = Runner.from_cfg(cfg)
        model = runner.model
        model.load_state_dict(adaptive.weights)
        model.data_preprocessor.register_forward_hook(
            lambda module, args, out: dict(
                out,
                inputs=F.interpolate(
                    out['inputs'],
                    (subnet.resolution,) * 2,
                    mode='bilinear',
                    antialias=True,
                ),
            )
        )
        statistics = adaptive.statistics.get(str(subnet))
        with model.activate(subnet, statistics):
            return runner.test()

    return run
