"""A stock detector of actions (AVA), from its config to exported files."""

import copy
import itertools

import adaptive_networks
import numpy as np
import person_networks as nets
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from table_runs import Run

from mutualnet_mm import UsageError
from mutualnet_mm.apis import (
    AdaptiveModel,
    build_table,
    count_macs,
    export_subnet,
    load_static,
)
from mutualnet_mm.apis.make_adaptive import prove

pytest.importorskip('mmaction')
pytest.importorskip('mmdet')

STOCK = (
    'mmaction::detection/slowonly/'
    'slowonly_kinetics400-pretrained-r50_8xb16-4x16x1-20e_ava21-rgb.py'
)
SUBNETS = ['1.0x-48-4', '0.5x-48-4', '0.5x-32-2']
METRIC = 'mAP/overall'
_numbers = itertools.count()


@pytest.fixture(scope='module')
def ava(tmp_path_factory):
    return nets.write_ava(tmp_path_factory.mktemp('ava'))


@pytest.fixture
def make_config(enter_scope, ava):
    """The stock config, changed as the docs say and made small."""
    enter_scope('mmdet')
    enter_scope('mmaction')
    from mmengine.hub import get_config

    def make(work_dir):
        cfg = get_config(STOCK)
        cfg.model.update(type='mutualnet_mm.MutualLearning')
        cfg.model.update(
            wraps='FastRCNN',
            init_cfg=None,
            mutual=dict(
                width_range=(0.5, 1.0), resolution=(48, 32), frames=(4, 2)
            ),
        )
        cfg.model.backbone.update(
            type='mutualnet_mm.Slimmable',
            wraps='mmaction.ResNet3dSlowOnly',
            stage_blocks=(1, 1, 1, 1),
            base_channels=8,
        )
        cfg.model.roi_head.bbox_head.in_channels = 256
        nets.use_ava(cfg, ava)
        sizes = {256: 48, 320: 56}

        def shrink(value):
            if isinstance(value, (list, tuple)):
                return type(value)(map(shrink, value))
            return sizes.get(value, value)

        for stage in ('train', 'val', 'test'):
            loader = cfg[f'{stage}_dataloader']
            loader.update(num_workers=0, persistent_workers=False)
            loader.batch_size = min(2, loader.batch_size)
            loader.dataset.serialize_data = False
            loader.dataset.pipeline = [
                {key: shrink(value) for key, value in step.items()}
                for step in loader.dataset.pipeline
            ]
        cfg.test_cfg = dict(type='mutualnet_mm.SubnetTestLoop')
        cfg.val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
        cfg.train_cfg.max_epochs = 1
        cfg.custom_hooks = [
            dict(type='mutualnet_mm.BNCalibrationHook', num_batches=1)
        ]
        cfg.update(
            experiment_name=f'ava{next(_numbers)}',
            work_dir=str(work_dir / 'work'),
            launcher='none',
            log_level='ERROR',
            randomness=dict(seed=0),
        )
        return cfg

    return make


@pytest.fixture(scope='module')
def runs():
    """The run that was made; no test changes it."""
    return []


@pytest.fixture
def run(runs, make_config, tmp_path_factory, monkeypatch):
    """Train for an epoch with a validation, and build the table."""
    if not runs:
        folder = tmp_path_factory.mktemp('run')
        monkeypatch.chdir(folder)  # where AVA's metric writes
        cfg = make_config(folder)
        runner = Runner.from_cfg(copy.deepcopy(cfg))
        adaptive_networks.randomise(runner.model)
        runner.model.init_weights = lambda: None
        runner.train()
        scalars = runner.message_hub.log_scalars
        metrics = {name: scalars[name].current() for name in scalars}
        checkpoint = str(folder / 'work' / 'epoch_1.pth')
        table = build_table(
            cfg, checkpoint, folder, subnets=SUBNETS, metric=METRIC
        )
        net = AdaptiveModel.from_file(folder / 'adaptive.pth')
        runs.append(Run(cfg, metrics, folder, table, net))
    return runs[0]


@pytest.mark.nightly
def test_training_and_validation(run):
    for name in ('loss_action_cls', 'min/total', 'loss_mutual'):
        assert np.isfinite(run.metrics[f'train/{name}']), name
    assert {f'val/{METRIC}', f'val/0.5x-32-2/{METRIC}'} <= set(run.metrics)


def test_the_table(run):
    table, model = run.table, run.net.model
    assert (table.task, table.views) == ('action detection', 1)
    assert [str(entry.subnet) for entry in table.entries] == SUBNETS
    for entry in table.entries:
        # Test clips keep the ratio of a common video: 48 x 64.
        assert entry.macs == count_macs(model, entry.subnet, (48, 64))
        assert 0 <= entry.metrics[METRIC] <= 1


def test_the_full_network_is_the_stock_one(run, monkeypatch):
    """In its own loop, by its own metric."""
    monkeypatch.chdir(run.folder)
    cfg = copy.deepcopy(run.cfg)
    cfg.model.update(type=cfg.model.pop('wraps'))
    del cfg.model['mutual']
    cfg.model.backbone.update(type=cfg.model.backbone.pop('wraps'))
    cfg.test_cfg = dict(type='TestLoop')
    cfg.custom_hooks = []
    cfg.load_from = str(run.folder / 'work' / 'epoch_1.pth')
    cfg.experiment_name += '-stock'
    found = Runner.from_cfg(cfg).test()
    metrics = run.table.entries[0].metrics
    assert found[METRIC] == pytest.approx(metrics[METRIC])
    assert run.metrics[f'val/{METRIC}'] == pytest.approx(found[METRIC])


def test_predictions_within_a_budget(run):
    net = run.net
    least = min(run.table.entries, key=lambda entry: entry.macs)
    assert net.set_budget(macs=least.macs) == least.subnet
    dataset = DATASETS.build(copy.deepcopy(run.cfg.test_dataloader.dataset))
    data = net.model.data_preprocessor(pseudo_collate([dataset[0]]), False)
    inputs, samples = data['inputs'], data['data_samples']
    assert inputs.shape == (1, 3, 4, 48, 64)
    name = str(least.subnet)
    expected = adaptive_networks.loop_outputs(
        net.model, name, net.file.statistics[name], inputs, samples
    )
    predicted = net.predict(inputs, samples)
    found = adaptive_networks.outputs(predicted)
    assert adaptive_networks.same(found, expected)
    boxes = predicted[0].pred_instances.bboxes
    where = torch.tensor([[0.1, 0.2, 0.6, 0.9]])  # parts of the image
    torch.testing.assert_close(boxes.float(), where)
    for given in ('clip.mp4', np.zeros((9, 48, 64, 3), np.uint8)):
        with pytest.raises(UsageError, match='register a Reader'):
            net(given)


@pytest.mark.nightly
def test_the_proof_of_a_config(make_config, tmp_path):
    """On random clips with a person each."""
    prove(make_config(tmp_path))
    cfg = make_config(tmp_path)
    cfg.model.roi_head.bbox_head.in_channels = 128
    with pytest.raises(UsageError, match='bbox_head'):
        prove(cfg)


@pytest.mark.sweep(2)
@pytest.mark.parametrize('format', ['static', 'torch', 'stock'])
@pytest.mark.parametrize('name', [SUBNETS[0], SUBNETS[-1]])
def test_exports(format, name, run, tmp_path):
    suffix = dict(torch='.pt2').get(format, '.pth')
    path = tmp_path / f'small{suffix}'
    proof = export_subnet(run.net, name, format, path)
    assert proof.difference.relative < 1e-4
    if format == 'stock':
        network = load_static(path)
        assert hasattr(network, 'task') is not (name == SUBNETS[0])
