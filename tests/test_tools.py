import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.fileio import load
from programs import run_program

from mutualnet_mm import Subnet
from mutualnet_mm.query_table import (
    Cascade,
    QueryTable,
    TableEntry,
    save_table,
)
from mutualnet_mm.query_table.resampling import NUMBER
from mutualnet_mm.tensor_files import load_checkpoint

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / 'configs/mutual_mask_rcnn_vgg16.py')
# WRN-10-1 on images that are not there.
CLASSIFIER = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)
model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    mutual=dict(width_range=(0.5, 1.0), resolution=(32,), num_random=0),
    backbone=dict(
        type='mutualnet_mm.SlimmableWideResNet', depth=10, widen_factor=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64))
train_dataloader = dict(dataset=dict(
    type='CustomDataset', data_root='nowhere', ann_file='train.txt'))
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop', subnets=['1.0x-32', '0.5x-32'])
"""
# Slow-18 at 2 clips of 3 crops.
SLOW_18 = """
default_scope = 'mmaction'
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)
model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='Recognizer3D',
    mutual=dict(width_range=(0.5, 1.0), resolution=(64, 32), frames=(4, 2)),
    backbone=dict(
        type='mutualnet_mm.SlimmableResNet3dSlowOnly', depth=18,
        base_channels=16, conv1_kernel=(1, 7, 7), inflate=(0, 0, 0, 0)),
    cls_head=dict(type='I3DHead', num_classes=10, in_channels=128))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='SampleFrames', clip_len=4, num_clips=2, test_mode=True),
    dict(type='Resize', scale=(-1, 128)),
    dict(type='ThreeCrop', crop_size=128)]))
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop', subnets=['1.0x-64-4', '0.5x-32-2'])
"""

# A network of the same layers over 6 segments of 3 crops, trained on 4.
TSN_18 = """
default_scope = 'mmaction'
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)
model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='Recognizer2D',
    mutual=dict(width_range=(0.5, 1.0), resolution=(64, 32), frames=(4, 2)),
    backbone=dict(
        type='mutualnet_mm.Slimmable', wraps='mmpretrain.ResNet', depth=18,
        base_channels=16, stem_channels=16),
    cls_head=dict(type='TSNHead', num_classes=10, in_channels=128))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='SampleFrames', clip_len=1, num_clips=6, test_mode=True),
    dict(type='Resize', scale=(-1, 128)),
    dict(type='ThreeCrop', crop_size=128),
    dict(type='FormatShape', input_format='NCHW')]))
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop', subnets=['1.0x-64-4', '0.5x-32-2'])
"""


# A Slow network of two stages.
RECOGNIZER = """
default_scope = 'mmaction'
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)
model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='Recognizer3D',
    mutual=dict(
        width_range=(0.5, 1.0),
        resolution=(64, 32),
        frames=(4, 2),
        include_min=False),
    backbone=dict(
        type='mutualnet_mm.SlimmableResNet3dSlowOnly',
        depth=18,
        num_stages=2,
        stage_blocks=(1, 1),
        out_indices=(1, ),
        spatial_strides=(1, 2),
        temporal_strides=(1, 1),
        dilations=(1, 1),
        inflate=(0, 1)),
    cls_head=dict(type='I3DHead', num_classes=10, in_channels=128))
"""


@pytest.mark.subprocess
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
def test_one_line_errors(command, message, tmp_path, monkeypatch):
    """The first of a tool as from the shell, the others in this process."""
    if CONFIG in command:
        pytest.importorskip('mmdet')
    (tmp_path / 'classifier.py').write_text(CLASSIFIER)
    monkeypatch.chdir(tmp_path)
    path = ROOT / 'tools' / command[0]
    if CONFIG in command:
        done = run_program(path, *command[1:])
    else:
        done = subprocess.run(
            [sys.executable, str(path), *command[1:]],
            env=dict(
                os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS='ignore'
            ),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f'error: {message}'
    assert 'Traceback' not in done.stderr


def test_training_needs_no_test_data(tmp_path, monkeypatch):
    """Only what trains and validates is looked for, as by the stock tools."""
    pytest.importorskip('mmpretrain')
    text = CLASSIFIER.replace('train_dataloader', 'test_dataloader')
    text += 'train_dataloader, train_cfg, optim_wrapper = [dict()] * 3\n'
    text += 'test_evaluator = dict()\n'
    (tmp_path / 'a.py').write_text(text)
    monkeypatch.chdir(tmp_path)
    trained = []
    monkeypatch.setattr(
        'mmengine.runner.Runner.from_cfg',
        lambda cfg: SimpleNamespace(
            model=None,
            register_hook=bool,
            train=lambda: trained.append(cfg),
        ),
    )
    assert run_program(ROOT / 'tools/train.py', 'a.py').returncode == 0
    assert len(trained) == 1


@pytest.mark.parametrize(
    'settings, message',
    [
        ('', 'the config has no test_dataloader: nothing to test'),
        (
            'test_dataloader, test_evaluator = dict(), dict()\n'
            'test_cfg = None\n',
            'the config has no test_cfg: name subnets by --subnet',
        ),
    ],
)
def test_what_cannot_be_tested(tmp_path, monkeypatch, settings, message):
    (tmp_path / 'a.py').write_text(f'{CLASSIFIER}{settings}')
    (tmp_path / 'a.pth').write_bytes(b'')
    monkeypatch.chdir(tmp_path)
    done = run_program(ROOT / 'tools/test.py', 'a.py', 'a.pth')
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f'error: {message}')


# Each tool for a config, with its other arguments.
TOOLS = {
    'train.py': '',
    'test.py': 'a.pth',
    'build_table.py': 'a.pth --out out',
    'get_flops.py': '',
    'training_cost.py': '',
}


def run_tool(tool, options=''):
    """Run a tool on ``a.py`` here; return how it ended, and its last line."""
    command = f'{TOOLS[tool]} {options}'.split()
    done = run_program(ROOT / 'tools' / tool, 'a.py', *command)
    return done.returncode, done.stderr.splitlines()[-1]


@pytest.mark.parametrize('tool', TOOLS)
@pytest.mark.parametrize(
    'text, message',
    [
        ('model = dict(', 'cannot be read: SyntaxError: '),
        ('model = dict(depth=width)', 'cannot be read: NameError: '),
        ("_base_ = 'no.py'", 'cannot be read: FileNotFoundError: '),
        ('work_dir = "out"', 'has no model with a type: set'),
        ('model = dict(depth=18)', 'has no model with a type: set'),
        ('model = None', 'has no model with a type: set'),
    ],
)
def test_bad_configs(tool, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.py').write_text(text)
    code, line = run_tool(tool)
    assert code == 1 and line.startswith(f"error: config 'a.py' {message}")


@pytest.mark.parametrize('tool', TOOLS)
@pytest.mark.parametrize(
    'given, code, message',
    [
        ('foo', 2, "--cfg-options: 'foo': write KEY=VALUE"),
        ('a=(1,2', 2, "--cfg-options: 'a=(1,2': write KEY=VALUE"),
        (
            'model.backbone.depth.x=3',
            1,
            "error: config 'a.py' cannot take model.backbone.depth.x=3: ",
        ),
    ],
)
def test_bad_options(tool, given, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.py').write_text(CLASSIFIER)
    found, line = run_tool(tool, f'--cfg-options {given}')
    assert found == code and message in line


def test_config_of_another_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.txt').write_text('model = dict()')
    done = run_program(ROOT / 'tools/train.py', 'a.txt')
    message = "error: config 'a.txt' cannot be read: OSError: Only py/yml"
    assert done.stderr.splitlines()[-1].startswith(message)


# What a runner takes, of data that are never read.
LOOPS = """
train_dataloader = val_dataloader = test_dataloader = dict(
    batch_size=1, num_workers=0, dataset=dict(type='CustomDataset'),
    sampler=dict(type='DefaultSampler', shuffle=False))
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
val_evaluator = test_evaluator = dict(type='Accuracy')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(checkpoint=dict(type='CheckpointHook'))
custom_hooks = [dict(type='EarlyStoppingHook', monitor='accuracy/top1')]
"""


@pytest.mark.parametrize(
    'tool, options, message',
    [
        ('train.py', '--amp', 'AmpOptimWrapper, mixed precision, needs a GPU'),
        (
            'train.py',
            '--cfg-options optim_wrapper.type=AmpOptimWrapper',
            'AmpOptimWrapper, mixed precision, needs a GPU',
        ),
        (
            'training_cost.py',
            '--measure --cfg-options optim_wrapper.type=AmpOptimWrapper',
            'AmpOptimWrapper, mixed precision, needs a GPU',
        ),
        ('train.py', '--cfg-options optim_wrapper=None', 'no optim_wrapper'),
        (
            'train.py',
            '--amp --cfg-options optim_wrapper=None',
            'the config has no optim_wrapper: nothing to train',
        ),
        (
            'training_cost.py',
            '--measure --cfg-options optim_wrapper=None',
            'the config has no optim_wrapper: nothing to train',
        ),
        ('test.py', '--cfg-options optim_wrapper=None', 'no optim_wrapper'),
        (
            'build_table.py',
            '--cfg-options optim_wrapper=None',
            'the config has train_dataloader, but no optim_wrapper: set all',
        ),
        (
            'test.py',
            '--cfg-options val_evaluator=None',
            'the config has val_dataloader, but no val_evaluator: set all',
        ),
        (
            'train.py',
            '--cfg-options model.mutual.teacher.config=no.py '
            'model.mutual.teacher.checkpoint=no.pth',
            "mutual.teacher: checkpoint 'no.pth' does not exist",
        ),
        ('train.py', '--launcher pytorch', 'no RANK in the environment'),
        ('test.py', '--launcher pytorch', 'no RANK in the environment'),
        ('test.py', '--launcher slurm', 'no SLURM_PROCID in the environment'),
        ('test.py', '--launcher mpi', 'start the tool by mpirun, or'),
        ('train.py', '--work-dir a.pth', "folder 'a.pth' cannot be made: Fi"),
        ('test.py', '--work-dir a.pth/b', "folder 'a.pth/b' cannot be made"),
        (
            'train.py',
            '--cfg-options default_hooks.checkpoint.save_best='
            '0.25x-16/accuracy/top1',
            "save_best='0.25x-16/accuracy/top1' is a metric of a subnet, but",
        ),
        (
            'train.py',
            '--cfg-options custom_hooks.0.monitor=0.25x-16/accuracy/top1',
            "monitor='0.25x-16/accuracy/top1' is a metric of a subnet, but",
        ),
    ],
)
def test_what_no_runner_takes(tool, options, message, tmp_path, monkeypatch):
    pytest.importorskip('mmpretrain')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mutualnet_mm.config.runner.get_device', lambda: 'cpu')
    for variable in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_LOCAL_RANK'):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / 'a.py').write_text(CLASSIFIER + LOOPS)
    (tmp_path / 'a.pth').write_bytes(b'')
    code, line = run_tool(tool, options)
    assert code == 1 and line.startswith('error: ') and message in line


def test_what_a_test_writes(make_config, checkpoint, tmp_path, monkeypatch):
    """Of every subnet, with augmentation; the metrics are what is printed."""
    monkeypatch.chdir(tmp_path)
    cfg = make_config(
        default_hooks=dict(visualization=dict(type='VisualizationHook')),
        visualizer=dict(type='UniversalVisualizer'),
        custom_imports=dict(imports=['mutualnet_mm']),
    )
    Path('a.py').write_text(cfg.pretty_text)
    tool = ROOT / 'tools/test.py'
    command = ['a.py', checkpoint, '--tta', '--subnet', '1.0x-32', '0.5x-16']
    options = ['--dump', 'out/found.pkl', '--show-dir', 'shown']
    done = run_program(tool, *command, *options, '--interval', '6')
    assert done.returncode == 0, done.stderr
    sums = [
        sum((s['pred_score'].double() ** 2).sum().item() for s in load(file))
        for file in ('out/found.pkl', 'out/found.0.5x-16.pkl')
    ]
    shown = {path.as_posix() for path in Path('shown').rglob('*.png')}
    assert len(shown) == 4
    assert {path.split('/')[1] for path in shown} == {'1.0x-32', '0.5x-16'}

    # The stock tool does the same, since the loop does it.
    stock = Path(import_module('mmpretrain').__file__).parent
    done = run_program(
        stock / '.mim/tools/test.py',
        *('a.py', checkpoint, '--tta', '--out', 'stock/found.pkl'),
        *('--show-dir', 'stock/shown', '--interval', '6', '--cfg-options'),
        'test_cfg.subnets=1.0x-32,0.5x-16',
    )
    assert done.returncode == 0, done.stderr
    for name in ('found.pkl', 'found.0.5x-16.pkl'):
        for ours, theirs in zip(load(f'out/{name}'), load(f'stock/{name}')):
            assert torch.equal(ours['pred_score'], theirs['pred_score'])
    names = {
        path.relative_to('stock') for path in Path('stock').rglob('*.png')
    }
    assert {path.as_posix() for path in names} == shown

    options = ['--out', 'out/found.json', '--out-item', 'metrics']
    assert run_program(tool, *command, *options).returncode == 0
    metrics = load('out/found.json')
    for prefix, expected in zip(('', '0.5x-16/'), sums):
        assert metrics[f'{prefix}sums/squares'] == pytest.approx(expected)
        assert f'{prefix}accuracy/top1' in metrics

    done = run_program(tool, *command, *options[2:])
    assert 'error: --out-item metrics: name the file by --out' in done.stderr


def test_training_without_validation(make_config, tmp_path, monkeypatch):
    """Not even what it would validate has to be there."""
    monkeypatch.chdir(tmp_path)
    hook = dict(type='CheckpointHook', save_best='0.5x-16/accuracy/top1')
    cfg = make_config(
        default_hooks=dict(checkpoint=hook),
        custom_imports=dict(imports=['mutualnet_mm']),
        auto_scale_lr=dict(base_batch_size=1),
        val_cfg=dict(),
    )
    cfg.val_dataloader = dict(cfg.test_dataloader)
    cfg.val_dataloader.dataset = dict(type='CustomDataset', data_root='no')
    cfg.val_evaluator = cfg.test_evaluator
    Path('a.py').write_text(cfg.pretty_text)
    tool = ROOT / 'tools/train.py'
    options = ['--work-dir', 'out', '--auto-scale-lr', '--seed', '1']
    done = run_program(tool, 'a.py', *options, '--no-validate')
    assert done.returncode == 0, done.stderr
    state = load_checkpoint('out/epoch_1.pth')
    assert state['optimizer']['param_groups'][0]['lr'] == 4 * 0.01
    done = run_program(tool, 'a.py', *options)
    assert done.returncode == 1 and "'no' does not exist" in done.stderr


def write_classifier(folder):
    """Write a config; return the arguments of a tool that prints JSON."""
    pytest.importorskip('mmpretrain')
    (folder / 'classifier.py').write_text(CLASSIFIER)
    return str(folder / 'classifier.py'), '--json'


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


@pytest.mark.subprocess
def test_get_flops(tmp_path):
    """By hand, without data; nothing but JSON is on standard output."""
    done = subprocess.run(
        [
            *(sys.executable, ROOT / 'tools/get_flops.py'),
            *write_classifier(tmp_path),
        ],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout)['subnets']
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


def slow_18(channels, side, frames):
    """Multiply-accumulates of a view but the classifier's, by hand."""
    side //= 2
    macs, inputs = side**2 * 49 * 3 * channels[0], channels[0]
    side //= 2
    for level, c in enumerate(channels):
        side //= 1 if level == 0 else 2
        macs += side**2 * 9 * (inputs * c + 3 * c * c)
        macs += 0 if level == 0 else side**2 * inputs * c
        inputs = c
    pooled = side**2 * inputs
    return frames * (macs + pooled)


@pytest.mark.parametrize(
    'options, height', [('', 128), ('--image-shape 64 128', 64)]
)
def test_get_flops_of_videos(tmp_path, monkeypatch, capsys, options, height):
    """Of one view and of all; half of a square has half of its cost."""
    pytest.importorskip('mmaction')
    path = tmp_path / 'recognizer.py'
    path.write_text(SLOW_18)
    command = f'get_flops.py {path} --json {options}'
    monkeypatch.setattr(sys, 'argv', command.split())
    load_tool('get_flops').main()
    rows = json.loads(capsys.readouterr().out)['subnets']
    assert [row['subnet'] for row in rows] == ['1.0x-64-4', '0.5x-32-2']
    for row, channels, scale, frames in zip(
        rows, [(16, 32, 64, 128), (8, 16, 32, 64)], [1, 2], [4, 2]
    ):
        classifier = 10 * channels[-1]
        square = slow_18(channels, 128 // scale, frames)
        macs = square * height // 128 + classifier
        expected = dict(
            input_shape=[3, frames, height // scale, 128 // scale],
            macs=macs,
            views=6,
            video_macs=6 * macs,
        )
        assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize(
    'options, height', [('', 128), ('--image-shape 64 128', 64)]
)
def test_get_flops_of_segments(tmp_path, monkeypatch, capsys, options, height):
    """Of those that a test samples, thinned out as those of the training."""
    pytest.importorskip('mmaction')
    pytest.importorskip('mmpretrain')
    path = tmp_path / 'segments.py'
    path.write_text(TSN_18)
    command = f'get_flops.py {path} --json {options}'
    monkeypatch.setattr(sys, 'argv', command.split())
    load_tool('get_flops').main()
    rows = json.loads(capsys.readouterr().out)['subnets']
    for row, channels, scale, segments in zip(
        rows, [(16, 32, 64, 128), (8, 16, 32, 64)], [1, 2], [6, 3]
    ):
        square = slow_18(channels, 128 // scale, segments)
        macs = square * height // 128 + 10 * channels[-1]
        expected = dict(
            input_shape=[segments, 3, height // scale, 128 // scale],
            macs=macs,
            views=3,
            video_macs=3 * macs,
        )
        assert {name: row[name] for name in expected} == expected


def test_training_cost(tmp_path):
    """Two subnets and none at random: sums that are easy to check."""
    command = write_classifier(tmp_path)
    done = run_program(ROOT / 'tools/training_cost.py', *command)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
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
        input=[32, 32],
        sampling='full + smallest',
        independent=dict(
            listed={'1.0x-32': full, '0.5x-32': least}, grid=grid
        ),
        macs=macs,
        ratio={name: number / full for name, number in macs.items()},
        other_sampling={},
    )


def test_training_cost_of_video(tmp_path, capsys):
    """Eq. 9 by hand, and the cost of another size of the clips."""
    pytest.importorskip('mmaction')
    (tmp_path / 'slow.py').write_text(RECOGNIZER)
    tool = load_tool('training_cost')
    settings = dict(config=str(tmp_path / 'slow.py'), cfg_options=None)
    small, result = (
        tool.count(
            SimpleNamespace(**settings, measure=False, image_shape=shape)
        )
        for shape in (None, [128, 128])
    )
    # All but the classifier grows with the area.
    assert small['input'] == (64, 64) and result['input'] == (128, 128)
    macs = [r['macs']['full'] - 128 * 10 for r in (small, result)]
    assert macs[1] == 4 * macs[0]

    size = (64**2 + 32**2) / 2 / 64**2 * (4 + 2) / 2 / 4
    # The mean of the square of a width from [0.5, 1].
    random = size * (0.5**2 + 0.5 * 1 + 1**2) / 3
    ratios = {
        'full + 2 random': 1 + 2 * random,
        'full + smallest + 1 random': 1 + size * 0.5**2 + random,
        'full + 1 random': 1 + random,
    }
    ways = {result['sampling']: result, **result['other_sampling']}
    assert list(ways) == list(ratios)
    for name, ratio in ratios.items():
        found = ways[name]['ratio']
        assert found['closed_form'] == pytest.approx(ratio)
        assert found['expected'] == pytest.approx(ratio, rel=0.1)
        assert ways[name]['macs']['expected'] == pytest.approx(
            found['expected'] * result['macs']['full']
        )
    assert len(result['independent']['grid']) == 11 * 4

    tool.show(result)
    text = capsys.readouterr().out
    for part in ('clip of 128 x 128', 'full + 1 random, Eq. 9', '1.0x-64-4'):
        assert part in text


@pytest.mark.parametrize('tool', ['training_cost', 'get_flops'])
@pytest.mark.parametrize('side', ['0', '-3', '1.5'])
def test_image_shape_of_no_pixels(tool, side):
    path = ROOT / f'tools/{tool}.py'
    done = run_program(path, 'a.py', '--image-shape', side, '64')
    assert done.returncode == 2
    message = f"argument --image-shape: '{side}': use pixels, from 1"
    assert done.stderr.endswith(f'error: {message}\n')


@pytest.mark.parametrize(
    'tool', ['get_flops', 'training_cost', 'export_subnet', 'measure_latency']
)
def test_help_explains(tool):
    """The second paragraph of the docstring, below the arguments."""
    done = run_program(ROOT / f'tools/{tool}.py', '--help')
    assert done.returncode == 0
    text = ' '.join(done.stdout.split())
    paragraphs = load_tool(tool).__doc__.split('\n\n')
    for paragraph in paragraphs:
        assert ' '.join(paragraph.split()) in text


@pytest.mark.parametrize('number, text', [(0, '0.00  '), (999, '999.00  ')])
def test_small_numbers(number, text):
    assert load_tool('get_flops').short(number) == text


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


def test_table_of_the_flops_of_videos(capsys):
    row = dict(subnet='0.63x-142-3', input_shape=[3, 3, 162, 162])
    row.update(macs=3_828_700_000, params=13_090_000)
    row.update(views=30, video_macs=114_861_000_000)
    load_tool('get_flops').show([row])
    text = capsys.readouterr().out
    assert '3 x 3 x 162 x 162' in text
    cells = [cell.strip() for cell in text.splitlines()[3].split('│')]
    assert cells[3:-1] == ['3.83 G', '30', '114.86 G', '13.09 M']
    assert 'MACs x views' in text and 'views ' in text


def test_table_of_training_cost(capsys):
    numbers = dict(full=569e6, closed_form=912e6, expected=926e6)
    result = dict(
        full='1.0x-224',
        input=[224, 192],
        sampling='full + smallest + 2 random',
        independent=dict(
            listed={'1.0x-224': 569e6, '0.25x-128': 14e6},
            grid={'1.0x-224': 569e6},
        ),
        macs=dict(numbers, listed=583e6, grid=1569e6),
        ratio=dict.fromkeys([*numbers, 'listed', 'grid'], 1.628),
        other_sampling={},
    )
    show = load_tool('training_cost').show
    show(result)
    text = capsys.readouterr().out
    for part in (
        *('926.0 M', '1,569.0 M', '1.63', '2 networks', 'Eq. 2'),
        *('1.0x-224, 0.25x-128', 'image of 224 x 192'),
    ):
        assert part in text
    assert 'Measured' not in text and ' G ' not in text
    other = dict(
        macs=dict(closed_form=80.94e9, expected=82.53e9),
        ratio=dict(closed_form=1.485, expected=1.514),
    )
    show(
        dict(
            result,
            full='1.0x-224-8',
            sampling='full + 2 random',
            macs=dict(result['macs'], full=54.52e9, closed_form=87.812e9),
            other_sampling={'full + 1 random': other},
        )
    )
    lines = capsys.readouterr().out.splitlines()
    for parts in (
        ('the full network alone, 1.0x-224-8', '54.52 G'),
        ('full + 2 random, Eq. 9 in closed form', '87.81 G', '1.63'),
        ('full + 1 random, Eq. 9 in closed form', '80.94 G', '1.49'),
        ('full + 1 random, from the rounded channels', '82.53 G', '1.51'),
        ('config: full + 2 random;',),
    ):
        assert any(all(part in line for part in parts) for line in lines)
    times = dict(mutual=0.4, full=0.2, ratio=2.1, macs_ratio=1.7, pairs=20)
    times.update(batch_size=8, machine='a machine, 2 threads')
    show(dict(result, measured=times))
    text = capsys.readouterr().out
    for part in ('a machine, 2 threads', 'batches of 8', '0.400', '2.10'):
        assert part in text


def table_of_two(drift):
    """A table whose two subnets differ by chance, if ``drift`` is large."""
    rng = np.random.default_rng(0)
    return QueryTable(
        [
            TableEntry(
                Subnet.parse(name),
                macs,
                1,
                {'coco/bbox_mAP': score},
                resampled={
                    'coco/bbox_mAP': tuple(
                        (score + rng.normal(0, drift + 1e-3, NUMBER)).tolist()
                    )
                },
            )
            for name, macs, score in (
                ('1.0x-16', 100, 0.5),
                ('0.5x-16', 10, 0.4),
            )
        ],
        'coco/bbox_mAP',
        'detection',
        Subnet(1.0, 16),
    )


@pytest.mark.parametrize('macs, dash', [(None, True), (5, False)])
def test_get_flops_explains_a_dash(capsys, macs, dash):
    row = dict(subnet='1.0x-32', input_shape=(3, 32, 32), macs=9, params=9)
    load_tool('get_flops').show([dict(row, head_macs=macs, head_params=9)])
    assert ('depends' in capsys.readouterr().out) == dash


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
            None,
        )
        return few

    few = table_of_two(0.2)
    stages = Subnet(0.5, 16), Subnet(1.0, 16)
    few.cascades = [Cascade(stages, 0.9, 2e6, 5 * 10**6, few.metric, 0.7)] * 4
    monkeypatch.setattr(tool, 'build_table', build_table)
    tool.main()
    text = capsys.readouterr().out
    assert '* 1.0x-16' in text and 'coco/bbox_mAP' in text
    assert '2 subnets, 2 of them' in text and 'out/{table' in text
    assert 'some budget, and 4 cascades of two: out' in text
    one = QueryTable(few.entries[:1], few.metric, few.task, Subnet(1.0, 16))
    monkeypatch.setattr(tool, 'build_table', lambda *_: one)
    tool.main()
    text = capsys.readouterr().out
    assert '1 subnet, 1 of them' in text and 'casc' not in text

    monkeypatch.setattr(tool, 'build_table', lambda *_: None)
    tool.main()
    text = capsys.readouterr().out
    assert text == (
        'this part is finished, others are not: the last one writes '
        'out/table.json\n'
    )

    def search_widths(cfg, *args):
        found = 7, 0.1, ['0.5x-32'], 9, 'accuracy/top1'
        assert args == ('epoch_1.pth', 'out', *found)
        return few

    monkeypatch.setattr(tool, 'search_widths', search_widths)
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--search', '7'])
    tool.main()
    assert '2 subnets' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--shard', '1/2'])
    with pytest.raises(SystemExit, match='--search 7 --shard 1/2: each draw'):
        tool.main()
    monkeypatch.setattr(sys, 'argv', sys.argv[:-4])

    # What is as good, where the table says how far scores may be off.
    for drift, expected in (
        (0.2, '; 0.5x-16 takes 10% of its MACs and is not significantly'),
        (0.0, ', significantly more than all that is cheaper'),
    ):
        table = table_of_two(drift)
        monkeypatch.setattr(tool, 'build_table', lambda *_, t=table: t)
        tool.main()
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.startswith('1.0x-16 has coco/bbox_mAP 0.5, with 95 % betw')
        assert expected in line
    cheap = QueryTable(
        table.entries[1:], table.metric, table.task, Subnet(1.0, 16)
    )
    assert tool.uncertainty(cheap).endswith(', and is the cheapest of all')

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, 'build_table', interrupted)
    with pytest.raises(SystemExit, match='the same command goes on'):
        tool.main()


def test_plot_curves(tmp_path, monkeypatch, capsys):
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
    assert capsys.readouterr().out == 'written: a.png\n'
    run('--labels', 'MutualNet', 'US-Net', '--metric', 'b', '--log')
    assert [list(args[0]) for args in seen] == [
        ['first', 'second'],
        ['MutualNet', 'US-Net'],
    ]
    run('--cost', 'latency_ms', '--device', 'cpu')
    assert [args[1:] for args in seen] == [
        ('a.png', None, False, 'macs', None),
        ('a.png', 'b', True, 'macs', None),
        ('a.png', None, False, 'latency_ms', 'cpu'),
    ]
    with pytest.raises(SystemExit, match='--device cpu: add --cost latency'):
        run('--device', 'cpu')
    for labels in (['one'], ['same', 'same']):
        with pytest.raises(SystemExit, match='2 tables and the labels'):
            run('--labels', *labels)


def test_plot_curves_describes_cascades(tmp_path, monkeypatch, capsys):
    tool = load_tool('plot_curves')
    entries = [
        TableEntry(Subnet(width, 32), macs, 10, {'acc/top1': score})
        for width, macs, score in ((1.0, 4 * 10**6, 0.75), (0.5, 10**6, 0.5))
    ]
    stages = Subnet(0.5, 32), Subnet(1.0, 32)
    cascade = Cascade(stages, 0.9, 2e6, 5 * 10**6, 'acc/top1', 0.7)
    for cascades in (None, [cascade]):
        full = Subnet(1.0, 32)
        parts = entries, 'acc/top1', 'action', full
        table = QueryTable(*parts, cascades=cascades)
        save_table(table, tmp_path / 'table.json')
        path = str(tmp_path / 'table.json')
        command = ['plot_curves.py', path, '--describe', '--labels', 'net']
        monkeypatch.setattr(sys, 'argv', command)
        tool.main()
    plain, first, second = capsys.readouterr().out.splitlines()
    assert plain == first == 'net: 4.00 to 1.00 M: width 1.0x to 0.5x at 32'
    assert second == (
        'net, cascades: mean 2.00 M: 0.7 by 0.5x-32, below 0.9 1.0x-32 (5.00 '
        'M in the worst case), 0.5 by 0.5x-32 alone'
    )
