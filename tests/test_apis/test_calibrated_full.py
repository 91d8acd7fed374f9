"""The full network with calibrated statistics: measured, stored, exported."""

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mutualnet_mm.apis import AdaptiveFile, AdaptiveModel, build_table
from mutualnet_mm.export.checkpoint_file import load_static, save_stock

FULL, NARROW = '1.0x-32', '0.5x-16'
GIVEN = dict(subnets=[FULL, NARROW])


@pytest.fixture
def calibrated(make_config):
    """A config that calibrates the full network on all images at once."""
    hook = dict(type='mutualnet_mm.BNCalibrationHook', full='calibrated')
    cfg = make_config(custom_hooks=[hook])
    cfg.train_dataloader.batch_size = 8
    return cfg


@pytest.fixture
def batch_statistics(calibrated, weights):
    """What PyTorch's own layers find in the batch of all training images."""
    model = MODELS.build(calibrated.model)
    model.load_state_dict(weights)
    (batch,) = Runner.build_dataloader(calibrated.train_dataloader.to_dict())
    inputs = model.data_preprocessor(batch)['inputs']
    model.train()
    norms = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.BatchNorm2d)
    }
    for layer in norms.values():
        layer.momentum = 1.0
    with torch.no_grad():
        model.backbone(inputs)
    return {n: (m.running_mean, m.running_var) for n, m in norms.items()}


def test_the_table_and_the_file(
    calibrated,
    batch_statistics,
    make_config,
    checkpoint,
    stock_test,
    weights,
    tmp_path,
):
    plain = build_table(make_config(), checkpoint, tmp_path / 'plain', **GIVEN)
    table = build_table(calibrated, checkpoint, tmp_path / 'out', **GIVEN)
    full, narrow = table.entries
    running, _ = plain.entries
    assert {
        name[len('running/') :]: value
        for name, value in full.metrics.items()
        if name.startswith('running/')
    } == running.metrics
    assert full.metrics['sums/squares'] != running.metrics['sums/squares']
    assert not any(name.startswith('running/') for name in narrow.metrics)

    adaptive = AdaptiveFile.load(tmp_path / 'out/adaptive.pth')
    found = adaptive.statistics[FULL]
    assert found.keys() == batch_statistics.keys()
    for name, (mean, variance) in batch_statistics.items():
        torch.testing.assert_close(found[name][0], mean)
        # PyTorch divides by one value less: at most 1 of 8.
        ratio = found[name][1] / variance
        assert (ratio > 0.85).all() and (ratio < 1.001).all()
    measured = stock_test(adaptive, FULL)
    assert full.metrics['sums/squares'] == measured['sums/squares']
    # The checkpoint of the training stays as it is.
    for name, value in weights.items():
        assert torch.equal(adaptive.weights[name], value), name


def test_the_network_in_use(calibrated, checkpoint, tmp_path):
    build_table(calibrated, checkpoint, tmp_path, **GIVEN)
    net = AdaptiveModel.from_file(tmp_path / 'adaptive.pth')
    statistics = net.file.statistics[FULL]
    images = torch.randn(3, 3, 32, 32) * 50

    def scores(net):
        return torch.stack([s.pred_score for s in net(images)])

    first = scores(net)
    net.use(NARROW)
    net.use(FULL)
    assert torch.equal(scores(net), first)
    net.make_static([FULL], fuse_bn=False)
    torch.testing.assert_close(scores(net), first)
    save_stock(net, FULL, tmp_path / 'full.pth')
    stock = load_static(tmp_path / 'full.pth').state_dict()
    for name, (mean, variance) in statistics.items():
        assert torch.equal(stock[f'{name}.running_mean'], mean)
        assert torch.equal(stock[f'{name}.running_var'], variance)
    # Without them, as every file before, the running ones count.
    del net.file.statistics[FULL]
    running = AdaptiveModel(net.file)
    assert not torch.allclose(scores(running), first)


def test_other_data(make_config, checkpoint, tmp_path):
    """The full network, too, is calibrated on what a user gives."""
    cfg = make_config()
    build_table(cfg, checkpoint, tmp_path, **GIVEN)
    net = AdaptiveModel.from_file(tmp_path / 'adaptive.pth')
    before = net.statistics(net.current)
    net.calibrate(cfg.test_dataloader.to_dict(), FULL)
    assert before is None and net.statistics(net.current) is not None
