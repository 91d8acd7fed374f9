"""From training to a file without a batch norm anywhere: ConvNeXt."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mutualnet_mm.apis import (
    AdaptiveFile,
    AdaptiveModel,
    build_table,
    count_macs,
    export_subnet,
)
from mutualnet_mm.slimmable import slim_batch_norms

SUBNETS = ['1.0x-32', '0.5x-16', '0.25x-32']


@pytest.fixture
def cfg(make_config, classifier_config):
    """Without data to calibrate on."""
    model = classifier_config(dict(resolution=(32, 16)))
    model['backbone'] = dict(
        type='mutualnet_mm.Slimmable',
        wraps='ConvNeXt',
        arch=dict(depths=[1, 1, 2, 1], channels=[16, 32, 48, 64]),
        stem_patch_size=2,
        layer_scale_init_value=0.5,
    )
    model['neck'] = None
    model['head']['in_channels'] = 64
    cfg = make_config(model=model)
    for name in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        cfg.pop(name)
    return cfg


@pytest.fixture
def checkpoint(cfg, tmp_path):
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    torch.nn.init.normal_(model.head.fc.weight)
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)


@pytest.fixture
def folder(cfg, checkpoint, tmp_path):
    build_table(cfg, checkpoint, tmp_path / 'out', subnets=SUBNETS)
    return tmp_path / 'out'


def test_a_table(cfg, stock_test, folder):
    adaptive = AdaptiveFile.load(folder / 'adaptive.pth')
    assert adaptive.statistics == {subnet: {} for subnet in SUBNETS[1:]}
    model = MODELS.build(cfg.model)
    assert not any(slim_batch_norms(model))
    for entry in adaptive.table.entries:
        found = stock_test(adaptive, entry.subnet)
        assert entry.metrics['sums/squares'] == found['sums/squares']
        assert entry.macs == count_macs(model, entry.subnet)
    scores = {e.metrics['sums/squares'] for e in adaptive.table.entries}
    assert len(scores) == len(SUBNETS)


def test_a_file_runs_any_subnet(folder, tmp_path):
    net = AdaptiveModel.from_file(folder / 'adaptive.pth')
    images, scores = torch.rand(2, 3, 32, 32) * 255, []

    def run():
        return torch.stack([sample.pred_score for sample in net(images)])

    for subnet in (*SUBNETS, '0.4x-16'):  # not of the table
        net.use(subnet)
        scores.append(run())
    assert all(not torch.equal(scores[0], other) for other in scores[1:])
    net.calibrate([], '0.4x-16')  # there is nothing to collect
    net.use('0.4x-16')
    assert torch.equal(run(), scores[-1])
    file = tmp_path / 'narrow.pth'
    export_subnet(net, '0.5x-16', 'static', file)
    weights = torch.load(file, weights_only=True)['state_dict']
    assert weights['backbone.stages.0.0.gamma'].shape == (8,)


def test_training(cfg, make_config):
    """The hook has nothing to do, and the subnets are tested."""
    runner = Runner.from_cfg(
        make_config(
            model=copy.deepcopy(cfg.model),
            val_dataloader=make_config().test_dataloader,
            val_evaluator=make_config().test_evaluator,
            val_cfg=dict(
                type='mutualnet_mm.SubnetValLoop', subnets=SUBNETS[:2]
            ),
            custom_hooks=[dict(type='mutualnet_mm.BNCalibrationHook')],
        )
    )
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    after = runner.model.state_dict()
    assert all(not torch.equal(after[k], before[k]) for k in before)
