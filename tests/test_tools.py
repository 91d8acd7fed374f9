import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest

from mutualnet_mm import Subnet
from mutualnet_mm.evaluation import QueryTable, TableEntry, save_table

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / 'configs/mutual_mask_rcnn_vgg16.py')
# WRN-10-1 on images that are not there.
CLASSIFIER = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)
model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    mutual=dict(width=(0.5, 1.0), resolution=(32,), num_random=0),
    backbone=dict(
        type='mutualnet_mm.SlimmableWideResNet', depth=10, widen_factor=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64))
train_dataloader = dict(dataset=dict(
    type='CustomDataset', data_root='nowhere', ann_file='train.txt'))
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop', subnets=['1.0x-32', '0.5x-32'])
"""


@pytest.mark.parametrize(
    'command, message',
    [
        (['train.py', 'no.py'], "config 'no.py' does not exist"),
        (['test.py', 'no.py', 'no.pth'], "config 'no.py' does not exist"),
        (
            ['build_table.py', 'no.py', 'no.pth', '--out', 'out'],
            "config 'no.py' does not exist",
        ),
        (
            ['plot_curves.py', 'no/table.json', '--out', 'curve.png'],
            "table 'no/table.json' cannot be read: No such file or directory",
        ),
        (
            ['train.py', CONFIG],
            "annotation file 'data/coco/annotations/instances_train2017.json' "
            'does not exist: set train_dataloader.dataset.data_root or '
            'train_dataloader.dataset.ann_file',
        ),
        (
            ['training_cost.py', 'classifier.py', '--measure'],
            "annotation file 'nowhere/train.txt' does not exist: set "
            'train_dataloader.dataset.data_root or '
            'train_dataloader.dataset.ann_file',
        ),
    ],
    ids=[
        'train',
        'test',
        'build_table',
        'plot_curves',
        'annotations',
        'training_cost',
    ],
)
def test_one_line_errors(command, message, tmp_path):
    if CONFIG in command:
        pytest.importorskip('mmdet')
    (tmp_path / 'classifier.py').write_text(CLASSIFIER)
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / command[0]), *command[1:]],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS='ignore'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f'error: {message}'
    assert 'Traceback' not in done.stderr


def run_on_classifier(folder, tool):
    """Run a tool that prints JSON, and nothing else, on standard output."""
    pytest.importorskip('mmpretrain')
    (folder / 'classifier.py').write_text(CLASSIFIER)
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / 'tools' / tool),
            'classifier.py',
            '--json',
        ],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def wide_resnet_10(a, b, c):
    """Multiply-accumulates at 32 x 32 pixels and parameters, by hand."""
    weights = {
        32 * 32: 27 * a + 2 * 9 * a * a,
        16 * 16: 9 * a * b + 9 * b * b + a * b,
        8 * 8: 9 * b * c + 9 * c * c + b * c,
    }
    batch_norms = 2 * (2 * a + a + b + b + c + c)
    macs = sum(positions * number for positions, number in weights.items())
    return (
        macs + 64 * c + 10 * c,
        sum(weights.values()) + batch_norms + 10 * c + 10,
    )


def test_get_flops(tmp_path):
    """By hand, and without any data."""
    rows = run_on_classifier(tmp_path, 'get_flops.py')['subnets']
    for row, width in zip(rows, (1.0, 0.5)):
        macs, params = wide_resnet_10(*(int(c * width) for c in (16, 32, 64)))
        assert row == dict(
            subnet=f'{width}x-32',
            width=width,
            resolution=32,
            frames=None,
            input_shape=[3, 32, 32],
            macs=macs,
            params=params,
        )
    assert len(rows) == 2


def test_training_cost(tmp_path):
    """Two subnets and none at random: sums that are easy to check."""
    result = run_on_classifier(tmp_path, 'training_cost.py')
    full, least = (
        wide_resnet_10(*channels)[0]
        for channels in [(16, 32, 64), (8, 16, 32)]
    )
    grid = result['independent']['grid']
    assert len(grid) == 11 and grid['1.0x-32'] == full
    assert grid['0.5x-32'] == least
    macs = dict(
        full=full,
        closed_form=full * (1 + 0.5**2),
        expected=full + least,
        listed=full + least,
        grid=sum(grid.values()),
    )
    assert result == dict(
        full='1.0x-32',
        independent=dict(
            listed={'1.0x-32': full, '0.5x-32': least}, grid=grid
        ),
        macs=macs,
        ratio={name: number / full for name, number in macs.items()},
    )


def load_tool(name):
    spec = spec_from_file_location(name, ROOT / f'tools/{name}.py')
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_table_of_flops(capsys):
    row = dict(subnet='0.5x-360', input_shape=[3, 384, 480])
    row.update(macs=23_539_876_000, params=23_770_000)
    show = load_tool('get_flops').show
    show([row])
    text = capsys.readouterr().out
    for part in ('0.5x-360', '384 x 480', '23.54 G', '23.77 M'):
        assert part in text
    assert 'head' not in text
    show([dict(row, head_macs=None, head_params=17_544)])
    text = capsys.readouterr().out
    assert 'head MACs' in text and '17.54 K' in text and ' - ' in text


def test_table_of_training_cost(capsys):
    numbers = dict(full=569e6, closed_form=912e6, expected=926e6)
    result = dict(
        full='1.0x-224',
        independent=dict(
            listed={'1.0x-224': 569e6, '0.25x-128': 14e6},
            grid={'1.0x-224': 569e6},
        ),
        macs=dict(numbers, listed=583e6, grid=569e6),
        ratio=dict.fromkeys([*numbers, 'listed', 'grid'], 1.628),
    )
    show = load_tool('training_cost').show
    show(result)
    text = capsys.readouterr().out
    for part in ('926.0 M', '1.63', '2 networks', '1.0x-224, 0.25x-128'):
        assert part in text
    assert 'Measured' not in text
    times = dict(mutual=0.4, full=0.2, ratio=2.1, macs_ratio=1.7, pairs=20)
    times.update(batch_size=8, machine='a machine, 2 threads')
    show(dict(result, measured=times))
    text = capsys.readouterr().out
    for part in ('a machine, 2 threads', 'batches of 8', '0.400', '2.10'):
        assert part in text


def test_build_table(tmp_path, monkeypatch, capsys):
    """What the tool hands over and prints; test_build.py runs the rest."""
    tool = load_tool('build_table')
    (tmp_path / 'classifier.py').write_text(CLASSIFIER)
    monkeypatch.chdir(tmp_path)
    command = 'build_table.py classifier.py epoch_1.pth --out out --step 0.1'
    options = '--num-images 9 --metric accuracy/top1 --subnet 0.5x-32'
    monkeypatch.setattr(sys, 'argv', f'{command} {options}'.split())

    def build_table(cfg, *args):
        assert cfg.work_dir == 'out' and cfg.model.mutual.resolution == (32,)
        assert args == (
            *('epoch_1.pth', 'out', 0.1, ['0.5x-32'], 9, 'accuracy/top1'),
        )
        return SimpleNamespace(entries=[1, 2, 3], pareto=[1, 2])

    monkeypatch.setattr(tool, 'build_table', build_table)
    tool.main()
    text = capsys.readouterr().out
    assert text.startswith('3 subnets, 2 of them') and 'out/{table' in text

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, 'build_table', interrupted)
    with pytest.raises(SystemExit, match='the same command goes on'):
        tool.main()


def test_plot_curves(tmp_path, monkeypatch):
    tool = load_tool('plot_curves')
    tables = []
    for name in ('first', 'second'):
        entry = TableEntry(Subnet(0.5, 32), 100, 10, {'a': 1.0, 'b': 2.0})
        table = QueryTable([entry], 'a', 'classification', Subnet(1.0, 32))
        tables.append(tmp_path / name / 'table.json')
        tables[-1].parent.mkdir()
        save_table(table, tables[-1])
    seen = []
    monkeypatch.setattr(tool, 'plot_tables', lambda *args: seen.append(args))

    def run(*options):
        command = ['plot_curves.py', *map(str, tables), '--out', 'a.png']
        monkeypatch.setattr(sys, 'argv', [*command, *options])
        tool.main()

    run()
    run('--labels', 'MutualNet', 'US-Net', '--metric', 'b', '--log')
    assert [list(args[0]) for args in seen] == [
        ['first', 'second'],
        ['MutualNet', 'US-Net'],
    ]
    assert [args[1:] for args in seen] == [
        ('a.png', None, False),
        ('a.png', 'b', True),
    ]
    for labels in (['one'], ['same', 'same']):
        with pytest.raises(SystemExit, match='2 tables and the labels'):
            run('--labels', *labels)
