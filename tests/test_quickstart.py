"""The two-minute example, cut short, by our tools and by mmpretrain's own."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from programs import run_program

from mutualnet_mm.files import only_user
from mutualnet_mm.tensor_files import load_checkpoint

mmpretrain = pytest.importorskip('mmpretrain')
pytest.importorskip('sklearn')
pytestmark = pytest.mark.subprocess
ROOT = Path(__file__).parents[1]
CONFIG = (
    ROOT
    / 'configs/classification'
    / 'mutual-resnet14_1xb64_cluttered-digits.py'
)
STOCK = Path(mmpretrain.__file__).parent / '.mim/tools'

# Images of all classes, whose folders are read one after the other.
SOME = [
    f'{split}_dataloader.dataset.indices={list(range(0, number, step))}'
    for split, number, step in (
        ('train', 4000, 8),
        ('val', 2000, 20),
        ('test', 2000, 20),
    )
]


def run(*command, start=run_program):
    done = start(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def start_process(*command):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, command)],
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope='module')
def example(tmp_path_factory):
    """Folder of one epoch's results, what was printed, and the command.

    As from the shell, the only one; the other programs run in this process.
    """
    root = tmp_path_factory.mktemp('quickstart')
    command = [
        *(ROOT / 'tools/quickstart.py', '--task', 'cls'),
        *('--data-dir', root / 'digits', '--work-dir', root / 'out'),
        *('--cfg-options', 'train_cfg.max_epochs=1', *SOME),
    ]
    return root / 'out', run(*command, start=start_process), command


@pytest.fixture(scope='module')
def data_options(example):
    data = example[0].parent / 'digits'
    return ['--cfg-options', *SOME] + [
        f'{split}_dataloader.dataset.data_root={data}'
        for split in ('train', 'val', 'test')
    ]


def top1(log):
    """Accuracy of the full network, as the last line of a test shows it."""
    return float(re.findall(r' accuracy/top1: ([\d.]+)', log)[-1])


@pytest.mark.slow
def test_table_and_files(example):
    out, log, _ = example
    table = json.loads((out / 'table.json').read_text())
    # Widths in steps of 0.25, three resolutions.
    subnets = [entry['subnet'] for entry in table['entries']]
    assert len(subnets) == 12 and table['full'] == '1.0x-32'
    assert all(subnet in log for subnet in subnets)
    assert table['metric'] == 'accuracy/top1'
    macs = {e['subnet']: e['macs'] for e in table['entries']}
    assert macs['1.0x-32'] == max(macs.values())
    assert (out / 'curve.png').stat().st_size > 1000
    assert len((out / 'table.csv').read_text().splitlines()) == 13
    content = torch.load(out / 'adaptive.pth', weights_only=True)
    assert set(content['statistics']) == set(subnets) - {'1.0x-32'}


@pytest.mark.slow
def test_again_it_is_finished(example):
    out, _, command = example
    before = (out / 'table.json').read_bytes()
    log = run(*command)
    assert 'Epoch(train)' not in log and 'Calibrating' not in log
    assert (out / 'table.json').read_bytes() == before


@pytest.mark.slow
def test_other_settings_need_another_folder(example):
    """The training that is there would be shown as theirs."""
    *command, _ = example[2]
    done = run_program(*command, 'param_scheduler.1.T_max=5', SOME[-1])
    assert done.returncode == 1
    assert 'holds a training of another param_scheduler' in done.stderr


@pytest.mark.slow
def test_one_at_a_time(example, monkeypatch):
    out, _, command = example
    quick = partial(only_user, wait=0.1)
    monkeypatch.setattr('mutualnet_mm.config.runner.only_user', quick)
    with only_user(out):
        done = run_program(*command)
    assert done.returncode == 1 and 'another process works in' in done.stderr


@pytest.mark.slow
def test_stock_tools(example, data_options, tmp_path):
    """mmpretrain's own train.py trains it, test.py finds the same figures."""
    out = example[0]
    log = run(
        *(STOCK / 'test.py', CONFIG, out / 'epoch_1.pth'),
        *('--work-dir', tmp_path / 'test', *data_options),
    )
    entries = json.loads((out / 'table.json').read_text())['entries']
    full = next(e for e in entries if e['subnet'] == '1.0x-32')
    assert top1(log) == pytest.approx(full['metrics']['accuracy/top1'])
    assert '0.25x-16/accuracy/top1' in log
    log = run(
        *(STOCK / 'train.py', CONFIG, '--work-dir', tmp_path / 'train'),
        *(*data_options, 'train_cfg.max_epochs=1'),
    )
    assert (tmp_path / 'train/epoch_1.pth').is_file()
    # The same seed, the same training.
    assert top1(log) == pytest.approx(full['metrics']['accuracy/top1'])


def test_stock_inferencer(example, enter_scope):
    """It runs the full network, with the scores of the stock class."""
    enter_scope('mmpretrain')
    from mmengine.config import Config
    from mmengine.registry import MODELS

    out = example[0]
    checkpoint = str(out / 'epoch_1.pth')
    inferencer = mmpretrain.ImageClassificationInferencer(
        str(CONFIG), pretrained=checkpoint, device='cpu'
    )
    files = sorted(map(str, (out.parent / 'digits/val/7').glob('*.png')))[:3]
    found = inferencer(files)

    model = Config.fromfile(CONFIG).model
    model.type, _ = model.pop('wraps'), model.pop('mutual')
    model.backbone.type = 'ResNet_CIFAR'
    stock = MODELS.build(model)
    state = load_checkpoint(checkpoint)['state_dict']
    stock.load_state_dict(state, strict=True)
    inferencer.model = stock.eval()
    for ours, theirs in zip(found, inferencer(files)):
        assert ours['pred_label'] == theirs['pred_label']
        assert (ours['pred_scores'] == theirs['pred_scores']).all()
