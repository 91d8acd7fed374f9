"""Table 1: cut networks against stock ones of their size, made by hand."""

import csv
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmengine.runner import Runner
from plain_networks import fill
from programs import run_program

from mutualnet_mm import ConfigError, Subnet, UsageError
from mutualnet_mm.analysis.cut import (
    ADAPTIVE,
    ALONE,
    CALIBRATED,
    CUT,
    cut_rows,
    cut_table,
    save_cut,
)
from mutualnet_mm.apis import build_table

SUBNETS = ['1.0x-32', '0.5x-16']
TOOL = Path(__file__).parents[2] / 'tools/analysis/cut.py'


@pytest.fixture
def save(tmp_path, make_config, weights):
    """Write a checkpoint, with a training's notes or without."""

    def write(name, mutual=None, scale=0.1):
        content = dict(
            state_dict={
                k: v * scale if 'fc' in k else v for k, v in weights.items()
            }
        )
        if mutual is not None:
            cfg = make_config()
            cfg.model.mutual.update(mutual)
            content.update(meta=dict(cfg=cfg.pretty_text))
        torch.save(content, tmp_path / f'{name}.pth')
        return str(tmp_path / f'{name}.pth')

    return write


@pytest.fixture
def scores(make_config, weights):
    """Squared scores over the test images, of a stock network of its size."""

    def run(base_channels, size):
        net = MODELS.build(
            dict(
                type='mmpretrain.ImageClassifier',
                backbone=dict(
                    type='ResNet',
                    depth=18,
                    stem_channels=base_channels,
                    base_channels=base_channels,
                ),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(
                    type='LinearClsHead',
                    num_classes=4,
                    in_channels=8 * base_channels,
                ),
            )
        )
        fill(net, weights).eval()
        net.head.fc.weight.data *= 0.1  # as ``save`` does
        net.head.fc.bias.data *= 0.1
        loader = Runner.build_dataloader(make_config().test_dataloader)
        total = 0.0
        for batch in loader:
            images = torch.stack(batch['inputs']).float()
            images = F.interpolate(
                images, (size, size), mode='bilinear', antialias=True
            )
            with torch.no_grad():
                found = net(images).softmax(1)
            total += found.double().pow(2).sum().item()
        return total

    return run


def values(table):
    return {str(e.subnet): table.score(e) for e in table.entries}


def test_rows_are_what_they_are_called(make_config, save, scores, tmp_path):
    cfg = make_config()
    stock, adaptive = save('stock'), save('adaptive', scale=0.08)
    alone = save('alone', dict(single_subnet='0.5x-16'), scale=0.06)
    tables = cut_table(
        cfg, stock, adaptive, tmp_path / 'out', SUBNETS, {'0.5x-16': alone}
    )
    assert list(tables) == [CUT, CALIBRATED, ALONE, ADAPTIVE]
    found = {name: values(table) for name, table in tables.items()}
    assert all(list(row) == SUBNETS for row in found.values())
    # Against networks of a stock class, as narrow as they were cut.
    full = scores(16, 32)
    for name in (CUT, CALIBRATED, ALONE):
        assert found[name]['1.0x-32'] == pytest.approx(full, rel=1e-5)
    assert found[CUT]['0.5x-16'] == pytest.approx(scores(8, 16), rel=1e-5)
    # Against tables that are built of each.
    for name, checkpoint in ((CALIBRATED, stock), (ADAPTIVE, adaptive)):
        table = build_table(
            make_config(), checkpoint, tmp_path / name, subnets=SUBNETS
        )
        assert found[name] == values(table)
    own = make_config()
    own.model.mutual.single_subnet = '0.5x-16'
    table = build_table(own, alone, tmp_path / 'own', subnets=['0.5x-16'])
    assert found[ALONE]['0.5x-16'] == values(table)['0.5x-16']
    assert len({row['0.5x-16'] for row in found.values()}) == 4


def test_cells_have_intervals(make_config, save, tmp_path):
    tables = cut_table(
        make_config(),
        save('stock'),
        save('adaptive'),
        tmp_path,
        SUBNETS,
        metric='accuracy/top1',
    )
    save_cut(tables, tmp_path)
    rows = json.loads((tmp_path / 'cut.json').read_text())['rows']
    assert rows == cut_rows(tables)
    assert [(r['method'], r['subnet']) for r in rows] == [
        (method, subnet)
        for method in (CUT, CALIBRATED, ADAPTIVE)
        for subnet in SUBNETS
    ]
    for row in rows:
        assert row['num_images'] == 12
        assert row['low'] <= row['value'] <= row['high']
        assert row['high'] - row['low'] > 30  # of 12 images, in percent
    with open(tmp_path / 'cut.csv', newline='') as file:
        lines = list(csv.DictReader(file))
    assert [float(line['value']) for line in lines] == [
        row['value'] for row in rows
    ]


def test_what_was_trained_otherwise_is_refused(make_config, save, tmp_path):
    stock, adaptive = save('stock'), save('adaptive')
    mutual = save('mutual', dict(seed=1))
    alone = save('alone', dict(single_subnet='0.5x-16'))
    cut = save('cut', dict(num_random=0, include_min=False))

    def refused(error, message, *checkpoints, alone=None):
        with pytest.raises(error, match=message):
            cut_table(
                make_config(), *checkpoints, tmp_path / 'o', SUBNETS, alone
            )
        assert not (tmp_path / 'o/progress').exists()

    said = r'mutual.pth.* 1.0x-32 alone, .* at widths 0.25x to 1.0x at 32, 16:'
    refused(UsageError, said, mutual, adaptive)
    refused(UsageError, r'alone.pth.* 1.0x-32 alone.*0.5x', alone, adaptive)
    refused(
        UsageError, r'cut.pth.* several subnets, .* 1.0x-32 alone:', stock, cut
    )
    given = {'0.5x-16': cut}
    refused(UsageError, 'at 0.5x-16 alone', cut, mutual, alone=given)
    given = {'0.75x-16': stock}
    refused(UsageError, '0.75x-16 was trained', cut, mutual, alone=given)
    given = {'0.1x-16': stock}
    refused(ConfigError, '0.1x-16', cut, mutual, alone=given)
    refused(UsageError, 'nowhere', str(tmp_path / 'nowhere.pth'), adaptive)


def test_widths_that_were_not_trained_are_cut(
    make_config, build_classifier, tmp_path, save
):
    """I-Net's checkpoint says that it has no narrow widths."""
    model = build_classifier(
        dict(widths=(1.0,), width_range=None, resolution=(32,), num_random=0)
    )
    path = str(tmp_path / 'inet.pth')
    torch.save(dict(state_dict=model.state_dict()), path)
    tables = cut_table(make_config(), path, save('adaptive'), tmp_path)
    assert Subnet(0.25, 16) in {e.subnet for e in tables[CUT].entries}


def test_tool(make_config, save, tmp_path, monkeypatch):
    cfg = make_config()
    cfg.test_evaluator = [dict(type='Accuracy')]
    cfg.dump(str(tmp_path / 'config.py'))
    monkeypatch.chdir(tmp_path)
    command = [TOOL, 'config.py', save('stock'), save('adaptive')]
    command += ['--subnet', *SUBNETS, '--out', 'out']
    result = run_program(*command)
    assert result.returncode == 0
    assert 'cut, calibrated' in result.stdout
    assert '1.0x-32' in result.stdout and '12 images' in result.stdout
    rows = json.loads((tmp_path / 'out/cut.json').read_text())['rows']
    assert f'{rows[0]["value"]:.1f} [' in result.stdout
    result = run_program(*command, '--alone', '0.5x-16')
    assert result.returncode == 1
    assert 'write SUBNET=CHECKPOINT' in result.stderr


def test_a_metric_that_is_nan_is_a_dash(
    make_config, save, tmp_path, monkeypatch
):
    make_config().dump(str(tmp_path / 'config.py'))
    monkeypatch.chdir(tmp_path)
    result = run_program(
        *(TOOL, 'config.py', save('stock'), save('adaptive')),
        *('--subnet', *SUBNETS, '--out', 'out', '--metric', 'sums/nothing'),
    )
    assert result.returncode == 0, result.stderr
    rows = [
        line.split('│')[2:-1]
        for line in result.stdout.splitlines()
        if line.startswith('│')
    ]
    assert len(rows) == 3
    assert all(cell.strip() == '-' for row in rows for cell in row)
    saved = json.loads((tmp_path / 'out/cut.json').read_text())['rows']
    assert [row['value'] for row in saved] == [None] * 6


def test_an_unknown_metric_costs_no_second_evaluation(
    make_config, save, tmp_path, score_sums
):
    """It can be known to be wrong only when the evaluator has given some."""
    given = save('stock'), save('adaptive'), tmp_path / 'out', SUBNETS
    with pytest.raises(UsageError, match="'foo' is unknown, .*accuracy/top1"):
        cut_table(make_config(), *given, metric='foo')
    before = len(score_sums.processed)
    assert before == 6  # three batches, two subnets, one method
    with pytest.raises(UsageError, match="'foo' is unknown"):
        cut_table(make_config(), *given, metric='foo')
    assert len(score_sums.processed) == before
    cut_table(make_config(), *given, metric='accuracy/top1')
    assert len(score_sums.processed) == 3 * before
