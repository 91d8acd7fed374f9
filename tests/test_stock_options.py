"""Options of our tools mean what they mean to the stock tools."""

import runpy
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from programs import run_program

TOOLS = Path(__file__).parents[1] / 'tools'
# Nothing of it is built.
CONFIG = """
default_scope = {scope!r}
model = dict(type='Model')
train_dataloader = dict(
    batch_size=2, num_workers=1, dataset=dict(type='Set', pipeline=[]))
val_dataloader = test_dataloader = dict(
    batch_size=1, num_workers=1, persistent_workers=True,
    dataset=dict(type='Set', pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type={packing!r}, meta_keys=(
            'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ]))
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
val_evaluator = test_evaluator = [dict(type='Metric')]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(visualization=dict(type={hook!r}))
"""
SCOPES = dict(
    mmdet=('PackDetInputs', 'DetVisualizationHook'),
    mmpretrain=('PackInputs', 'VisualizationHook'),
    mmaction=('PackActionInputs', 'VisualizationHook'),
)


class _Stop(Exception):
    """Raised where the runner would be built."""


def stock_config(scope, tool, arguments, monkeypatch):
    """What the stock tool would build a runner of."""
    path = Path(import_module(scope).__file__).parent / f'.mim/tools/{tool}.py'
    seen = []

    def from_cfg(cfg):
        seen.append(cfg)
        raise _Stop

    monkeypatch.setattr('mmengine.runner.Runner.from_cfg', from_cfg)
    monkeypatch.setattr(sys, 'argv', [str(path), *arguments])
    monkeypatch.setenv('LOCAL_RANK', '0')
    with pytest.raises(_Stop):
        runpy.run_path(str(path), run_name='__main__')
    return seen[0]


def our_config(tool, arguments, monkeypatch):
    """What our tool builds a runner of."""
    seen = []

    def from_cfg(cfg):
        seen.append(cfg)
        return SimpleNamespace(
            model=torch.nn.Linear(1, 1),
            register_hook=bool,
            train=dict,
            test=dict,
        )

    monkeypatch.setattr('mmengine.runner.Runner.from_cfg', from_cfg)
    monkeypatch.setattr('mutualnet_mm.config.runner.get_device', lambda: 'gpu')
    monkeypatch.setattr(
        'mutualnet_mm.config.options.is_cuda_available', lambda: True
    )
    done = run_program(TOOLS / f'{tool}.py', *arguments)
    assert done.returncode == 0, done.stderr
    return seen[0]


@pytest.fixture
def both(tmp_path, monkeypatch):
    """Return the settings that the stock tool and ours make of a config."""

    def run(scope, tool, options):
        pytest.importorskip(scope)
        monkeypatch.chdir(tmp_path)
        packing, hook = SCOPES[scope]
        text = CONFIG.format(scope=scope, packing=packing, hook=hook)
        Path('a.py').write_text(text)
        torch.save(torch.nn.Linear(1, 1).state_dict(), 'a.pth')
        arguments = ['a.py', *['a.pth'] * (tool == 'test'), *options.split()]
        found = []
        for cfg in (
            stock_config(scope, tool, arguments, monkeypatch),
            our_config(tool, arguments, monkeypatch),
        ):
            cfg = cfg.to_dict()
            cfg['work_dir'] = str(Path(cfg['work_dir']))
            found.append(cfg)
        return found

    return run


ALL = ('mmdet', 'mmpretrain', 'mmaction')


@pytest.mark.parametrize(
    'options, scopes',
    [
        ('', ALL),
        ('--auto-scale-lr', ALL),
        ('--amp', ALL),
        ('--resume', ALL),
        ('--resume a.pth --work-dir out', ALL),
        ('--launcher none --local_rank 1', ALL),
        ('--no-validate', ('mmpretrain', 'mmaction')),
        ('--no-pin-memory --no-persistent-workers', ('mmpretrain',)),
        ('--seed 3 --diff-rank-seed --deterministic', ('mmaction',)),
    ],
)
def test_training(both, options, scopes):
    for scope in scopes:
        stock, ours = both(scope, 'train', options)
        if 'randomness' in stock and 'seed' not in options:
            stock.pop('randomness')  # only defaults
        assert ours == stock


@pytest.mark.parametrize(
    'options, scopes',
    [
        ('', ALL),
        ('--tta', ('mmdet', 'mmpretrain')),
        ('--show-dir /shown', ('mmdet', 'mmpretrain')),
        ('--show --wait-time 0.5', ('mmdet', 'mmpretrain')),
        ('--show-dir /shown --interval 7', ('mmpretrain',)),
        ('--amp --no-pin-memory', ('mmpretrain',)),
    ],
)
def test_testing(both, options, scopes):
    for scope in scopes:
        stock, ours = both(scope, 'test', options)
        if options == '--tta':  # ours begins with the image as it is
            for cfg in (stock, ours):
                cfg.pop('tta_model', None)
                cfg.pop('tta_pipeline', None)
            steps = stock['test_dataloader']['dataset']['pipeline']
            steps[-1]['transforms'][0].reverse()
        assert ours == stock
