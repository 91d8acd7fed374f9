"""A checkpoint as analyses see it, beside the loops' and the stock one."""

import pytest
import torch
from mmengine.registry import MODELS

from mutualnet_mm import ConfigError, UsageError
from mutualnet_mm.analysis import TrainedNetwork
from mutualnet_mm.apis import AdaptiveFile, build_table

SUBNETS = ['1.0x-32', '0.5x-16']


def test_statistics_are_those_of_a_table(make_config, checkpoint, tmp_path):
    cfg = make_config(
        custom_hooks=[
            dict(
                type='mutualnet_mm.BNCalibrationHook',
                num_batches=2,
                priority='LOW',
            )
        ]
    )
    build_table(cfg, checkpoint, tmp_path / 'table', subnets=SUBNETS)
    file = AdaptiveFile.load(tmp_path / 'table/adaptive.pth')
    found = TrainedNetwork(cfg, checkpoint, SUBNETS)
    assert list(found.statistics) == ['0.5x-16']
    expected = file.statistics['0.5x-16']
    assert found.statistics['0.5x-16'].keys() == expected.keys()
    for layer, pair in found.statistics['0.5x-16'].items():
        assert all(map(torch.equal, pair, expected[layer]))
    bare = TrainedNetwork(cfg, checkpoint, SUBNETS, calibrated=False)
    assert bare.statistics == {}


def test_the_full_network_is_the_stock_one(make_config, checkpoint, weights):
    cfg = make_config()
    settings = {
        k: v for k, v in cfg.model.items() if k not in ('wraps', 'mutual')
    }
    stock = MODELS.build(
        dict(
            settings,
            type='ImageClassifier',
            backbone=dict(
                type='ResNet', depth=18, stem_channels=16, base_channels=16
            ),
        )
    )
    stock.load_state_dict(weights)
    stock.eval()
    found = TrainedNetwork(cfg, checkpoint, ['1.0x-32']).static('1.0x-32')
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(found(x), stock(x))


def test_files_are_read_as_in_tests(make_config, checkpoint, pictures):
    network = TrainedNetwork(make_config(), checkpoint, SUBNETS)
    file = str(pictures / 'test/0/0.png')
    inputs, samples = network.inputs([file])
    assert inputs.shape == (1, 3, 32, 32)
    assert samples[0].img_path == file
    with torch.no_grad():
        found = network.static('0.5x-16')(inputs, samples, mode='predict')
    assert found[0].pred_score.shape == (4,)


def test_refusals(make_config, checkpoint, tmp_path, weights):
    cfg = make_config()
    with pytest.raises(ConfigError, match='0.1x-32'):
        TrainedNetwork(cfg, checkpoint, ['0.1x-32'])
    with pytest.raises(UsageError, match=r"nowhere\.pth' does not exist"):
        TrainedNetwork(cfg, str(tmp_path / 'nowhere.pth'), SUBNETS)
    weights['head.fc.bias'][0] = float('nan')
    torch.save(dict(state_dict=weights), tmp_path / 'nan.pth')
    with pytest.raises(UsageError, match='head.fc.bias .* is not finite'):
        TrainedNetwork(cfg, str(tmp_path / 'nan.pth'), SUBNETS)
    hook = dict(type='mutualnet_mm.BNCalibrationHook')
    with pytest.raises(ConfigError, match='2 hooks BNCalibrationHook'):
        TrainedNetwork(
            make_config(custom_hooks=[hook, hook]), checkpoint, SUBNETS
        )


def test_a_checkpoint_of_fewer_widths(make_config, tmp_path, build_classifier):
    """Its metadata say so, in a parallel wrapper, too."""
    narrow = build_classifier(dict(resolution=(32, 16), width_range=(0.5, 1)))
    wrapped = torch.nn.Module()
    wrapped.module = narrow
    for number, model in enumerate((narrow, wrapped)):
        path = str(tmp_path / f'{number}.pth')
        torch.save(dict(state_dict=model.state_dict()), path)
        with pytest.raises(UsageError, match='widths from 0.5 to 1'):
            TrainedNetwork(make_config(), path, ['0.25x-16'])
