"""The weights and statistics that a table is of."""

from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import get_state_dict, save_checkpoint

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveFile, build_table

pytest.importorskip('mmpretrain')
from mmpretrain.structures import DataSample  # noqa: E402


@HOOKS.register_module(force=True)
class OtherWeights(Hook):
    """Swaps weights in for the test, as an EMA hook does."""

    def before_test_epoch(self, runner):
        runner.model.head.fc.bias.data += 1

    def after_test_epoch(self, runner, metrics=None):
        runner.model.head.fc.bias.data -= 1


def test_the_weights_evaluated_are_saved(
    stock_test, make_config, checkpoint, weights, tmp_path
):
    cfg = make_config(custom_hooks=[dict(type='OtherWeights')])
    table = build_table(cfg, checkpoint, tmp_path, subnets=['0.5x-16'])
    adaptive = AdaptiveFile.load(tmp_path / 'adaptive.pth')
    bias = adaptive.weights['head.fc.bias']
    assert torch.equal(bias, weights['head.fc.bias'] + 1)
    found = stock_test(adaptive, '0.5x-16')
    assert table.entries[0].metrics['sums/squares'] == found['sums/squares']


@pytest.mark.parametrize('hook', ['mmengine.EMAHook', 'mmpretrain.EMAHook'])
def test_averaged_weights(stock_test, make_config, weights, tmp_path, hook):
    """A checkpoint of an EMA hook has them under ``state_dict``."""
    trained = {
        f'module.{name}': v * 2 if name.endswith(('weight', 'bias')) else v
        for name, v in weights.items()
    }
    trained['steps'] = torch.tensor(7)
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(dict(state_dict=weights, ema_state_dict=trained), path)
    cfg = make_config(custom_hooks=[dict(type=hook)])
    table = build_table(cfg, path, tmp_path, subnets=['0.5x-16'])
    adaptive = AdaptiveFile.load(tmp_path / 'adaptive.pth')
    for name, value in weights.items():
        assert torch.equal(adaptive.weights[name], value), name
    found = stock_test(adaptive, '0.5x-16')
    assert table.entries[0].metrics['sums/squares'] == found['sums/squares']


def test_the_recipe_of_calibration_is_kept(make_config, checkpoint, tmp_path):
    cfg = make_config()
    hook = dict(
        type='mutualnet_mm.BNCalibrationHook',
        num_batches=1,
        dataloader=cfg.train_dataloader,
    )
    cfg.custom_hooks = [hook]
    build_table(cfg, checkpoint, tmp_path, subnets=['0.5x-16'])
    recipe = AdaptiveFile.load(tmp_path / 'adaptive.pth').calibration
    assert recipe['num_batches'] == 1
    assert recipe['dataloader'] == cfg.train_dataloader.to_dict()
    assert type(recipe['dataloader']['dataset']) is dict


def test_weights_that_are_not_finite(make_config, weights, tmp_path):
    """All scores would be wrong, and one of them the best."""
    name = next(n for n in weights if n.endswith('running_var'))
    weights = dict(weights)
    weights[name] = weights[name] * float('nan')
    path = tmp_path / 'nan.pth'
    torch.save(dict(state_dict=weights), path)
    with pytest.raises(UsageError, match=f'{name}.*finite'):
        build_table(make_config(), str(path), tmp_path / 'out')
    assert not (tmp_path / 'out' / 'table.json').exists()


@pytest.mark.parametrize(
    'metainfo, palette',
    [
        (dict(classes=['a', 'b'], palette=[1, 2, 3, 4, 5, 6]), True),
        ([dict(classes=('a', 'b'), palette=[(1, 2, 3), (4, 5, 6)])] * 2, True),
        (dict(classes=('a', 'b'), palette='random'), False),
        (None, None),
    ],
)
def test_names_of_classes_in_every_form(metainfo, palette):
    """Of joined data sets, and with colours in a row."""
    dataset = SimpleNamespace(metainfo=metainfo)
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    expected = dict(classes=['a', 'b'], palette=[(1, 2, 3), (4, 5, 6)])
    if not palette:
        del expected['palette']
    found = import_module('mutualnet_mm.apis.build_table')._dataset_meta(loop)
    assert found == (expected if metainfo else {})


def test_widths_that_were_never_trained(
    stock_test, make_config, weights, tmp_path
):
    """A checkpoint says what its training was for; stock ones do not."""
    narrower = make_config()
    narrower.model.mutual.width_range = (0.25, 0.8)
    model = MODELS.build(narrower.model)
    model.load_state_dict(weights)  # without metadata, as of a stock class
    path = str(tmp_path / 'epoch_1.pth')
    save_checkpoint(dict(state_dict=get_state_dict(model)), path)
    with pytest.raises(UsageError, match=r'from 0\.25 to 0\.8, so 1\.0x-32'):
        build_table(make_config(), path, tmp_path / 'a')
    cfg = make_config()
    cfg.load_from = path
    with pytest.raises(UsageError, match='no trained weights: leave it out'):
        Runner.from_cfg(cfg).test()
    table = build_table(
        make_config(), path, tmp_path / 'b', subnets=['0.5x-16']
    )
    assert len(table.entries) == 1
    # Trained here, it is of the config's own widths.
    other = MODELS.build(make_config().model).train()
    other.load_state_dict(model.state_dict())
    with pytest.raises(UsageError):
        other.check_trained([other.space.full])
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    other.loss(torch.randn(2, 3, 32, 32), samples)
    other.check_trained([other.space.full])
