"""Slips in a config, and broken files, end in one line."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from programs import run_program

from mutualnet_mm import ConfigError, UsageError
from mutualnet_mm.apis import build_table
from mutualnet_mm.config import make_runner
from mutualnet_mm.config.stock_errors import named_stock_errors

pytest.importorskip('mmpretrain')
TOOLS = Path(__file__).parents[2] / 'tools'
OURS = 'mutualnet_mm.'
LOOP = dict(type=f'{OURS}SubnetTestLoop')
MULTI = dict(type=f'{OURS}MultiResolution', resolution=(32, 16), transforms=[])


@pytest.fixture
def run(make_config, checkpoint, tmp_path, monkeypatch):
    """Run a tool with a changed config; return the line that it ends with."""

    def run_tool(tool, options=(), changes=None):
        cfg = make_config()
        cfg.merge_from_dict(changes or {})
        monkeypatch.chdir(tmp_path)
        cfg.dump('a.py')
        given = [] if tool == 'train' else [checkpoint]
        if tool == 'build_table':
            given += ['--out', 'out']
        done = run_program(TOOLS / f'{tool}.py', 'a.py', *given, *options)
        assert done.returncode == 1, done.stdout
        return done.stderr.splitlines()[-1]

    return run_tool


@pytest.mark.parametrize(
    'tool, changes, message',
    [
        (
            'test',
            dict(test_cfg=dict(LOOP, _delete_=True, subnet=['0.5x-16'])),
            "__init__() got an unexpected keyword argument 'subnet': correct",
        ),
        (
            'test',
            dict(test_cfg=dict(type=f'{OURS}SubnetTestLop')),
            f"did you mean '{OURS}SubnetTestLoop'?",
        ),
        (
            'test',
            dict(
                custom_hooks=[
                    dict(type=f'{OURS}BNCalibrationHook', num_batch=3)
                ]
            ),
            "__init__() got an unexpected keyword argument 'num_batch'"
            '...: correct',
        ),
        (
            'train',
            {'train_dataloader.dataset.pipeline': [MULTI]},
            "__init__() missing 1 required positional argument: 'resize': c",
        ),
        (
            'train',
            {'train_cfg.max_epoch': 3},
            "__init__() got an unexpected keyword argument 'max_epoch'",
        ),
        (
            'train',
            {'model.type': 'MutualLearning'},
            f"'MutualLearning' is not in the mmpretrain::model registry: did "
            f"you mean '{OURS}MutualLearning'?",
        ),
        (
            'build_table',
            {'model.backbone.depht': 18},
            "error: wraps='ResNet' cannot be built as set: ",
        ),
        (
            'train',
            {'train_dataloader.batch_size': 0},
            'DataLoader cannot be built as set: batch_size should be a posit',
        ),
        (
            'train',
            {'optim_wrapper.optimizer.lr': 'abc'},
            "SGD cannot be built as set: '<",
        ),
        (
            'train',
            {'optim_wrapper.accumulative_counts': 0},
            'OptimWrapper cannot be built as set: _accumulative_counts at',
        ),
        (
            'train',
            {'default_hooks.checkpoint': dict(save_best=3)},
            """must contain the key "type", but got {'save_best': 3}: cor""",
        ),
    ],
    ids=[
        *('argument', 'loop', 'hook', 'transform', 'stock loop', 'prefix'),
        'backbone',
        *('loader', 'optimizer', 'accumulation', 'stock hook'),
    ],
)
def test_slips_in_the_tools(run, tool, changes, message):
    line = run(tool, changes=changes)
    assert line.startswith('error: ')
    # Python 3.13 says in between what was meant.
    assert all(part in line for part in message.split('...')), line


def test_slips_of_a_runner(make_config):
    cfg = make_config()
    cfg.custom_hooks = [dict(type='BNCalibrationHook')]
    with pytest.raises(ConfigError, match=f"'{OURS}BNCalibrationHook'"):
        make_runner(cfg)


def test_missing_packages(monkeypatch):
    """As mmdet asks for one when a metric, or a step, is built."""
    metrics = pytest.importorskip('mmdet.evaluation.metrics')
    from mmdet.datasets.transforms import LoadPanopticAnnotations

    monkeypatch.setattr(metrics.coco_panoptic_metric, 'panopticapi', None)
    monkeypatch.setitem(sys.modules, 'panopticapi', None)
    for kind in (metrics.CocoPanopticMetric, LoadPanopticAnnotations):
        message = '^panopticapi is not installed'
        with pytest.raises(ConfigError, match=message), named_stock_errors():
            kind()


def test_defects_are_no_slips(make_config):
    """Of code that the config only names."""

    class Broken:
        def __init__(self):
            dict()['no such key']

    cfg = make_config()
    cfg.custom_hooks = [dict(type=Broken)]
    with pytest.raises(KeyError, match='no such key'):
        make_runner(cfg)


@pytest.fixture
def broken_images(pictures, tmp_path):
    """Copy the training images, one of each kind broken."""
    folder = tmp_path / 'broken'
    shutil.copytree(pictures / 'train', folder)
    for image in sorted(folder.glob('*/*.png'))[::2]:
        image.write_bytes(b'no image')
    return str(folder)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('tool', ['train', 'build_table'])
def test_a_broken_image(run, broken_images, tool, workers):
    line = run(
        tool,
        changes={
            'train_dataloader.dataset.data_root': broken_images,
            'train_dataloader.num_workers': workers,
        },
    )
    assert line.startswith(f"error: image '{broken_images}/")
    assert line.endswith('replace the file, or take it out of the data set')


def test_a_broken_image_in_python(
    make_config, broken_images, checkpoint, tmp_path
):
    cfg = make_config()
    cfg.train_dataloader.dataset.data_root = broken_images
    with pytest.raises(UsageError, match='^image .* cannot be read'):
        build_table(cfg, checkpoint, tmp_path / 'out', subnets=['0.5x-16'])


def test_no_image_at_all(run, tmp_path):
    root = tmp_path / 'empty'
    (root / 'a').mkdir(parents=True)
    changes = {'train_dataloader.dataset.data_root': str(root)}
    line = run('train', changes=changes)
    assert line.startswith('error: no image was found in the subfolders of ')
    assert str(root) in line and 'check data_root' in line


@pytest.mark.parametrize('how', ['--resume', '--resume FILE', 'load_from'])
def test_a_truncated_checkpoint(run, tmp_path, how):
    file = tmp_path / 'work/cut.pth'
    file.parent.mkdir()
    torch.save(dict(state_dict={}), file)
    file.write_bytes(file.read_bytes()[:-50])
    (tmp_path / 'work/last_checkpoint').write_text(str(file))
    options, changes = how.replace('FILE', str(file)).split(), {}
    if how == 'load_from':
        options, changes = [], dict(load_from=str(file))
    line = run('train', options, changes)
    assert line.startswith(f"error: checkpoint '{file}' cannot be read: ")


def test_resuming_with_another_number_of_classes(run, checkpoint):
    line = run(
        'train', ['--resume', checkpoint], {'model.head.num_classes': 7}
    )
    assert line == (
        f"error: checkpoint '{checkpoint}' does not fit the config: "
        'head.fc.weight is (4, 128), the model has (7, 128)'
    )


def test_a_path_in_place_of_a_config(checkpoint, tmp_path):
    with pytest.raises(UsageError, match="cfg='ad.py': give .*load_config"):
        build_table('ad.py', checkpoint, tmp_path / 'out')
