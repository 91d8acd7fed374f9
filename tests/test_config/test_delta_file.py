import ast
from types import FunctionType

import pytest
from mmengine.config import Config

from mutualnet_mm import ConfigError
from mutualnet_mm.config.adaptive import derive
from mutualnet_mm.config.changes import apply_changes
from mutualnet_mm.config.delta_file import delta_source, write_delta
from mutualnet_mm.config.stock import read_stock_config
from mutualnet_mm.config.stock_traits import StockTraits

TRAITS = StockTraits(
    'model', 'detection', frozen=dict(frozen_stages=-1, norm_eval=False)
)
OLD = """
model = dict(
    type='RetinaNet',
    backbone=dict(type='ResNet', norm_cfg=dict(requires_grad=False)))
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=[
    dict(type='Resize', scale=(107, 64), keep_ratio=True)]))
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
{hooks}
"""
# Types are classes, of modules that are imported without OpenMMLab's.
NEW = """
from torch.nn import Linear, ReLU
from mmengine.runner import TestLoop

model = dict(
    type=Linear,
    backbone=dict(type=ReLU, norm_cfg=dict(requires_grad=False)))
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=[
    dict(type='Resize', scale=(107, 64), keep_ratio=True)]))
val_cfg = dict(type='ValLoop')
test_cfg = dict(type=TestLoop)
{hooks}
"""


def named(node):
    """Settings with names in place of our functions and classes."""
    if isinstance(node, dict):
        return {key: named(item) for key, item in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(map(named, node))
    if isinstance(node, (type, FunctionType)):
        ours = node.__module__.startswith('mutualnet_mm')
        return f'mutualnet_mm.{node.__name__}' if ours else node
    return node


@pytest.mark.parametrize(
    'hooks', ['', 'custom_hooks = [dict(type="EMAHook")]']
)
@pytest.mark.parametrize('text', [OLD, NEW], ids=['old', 'new'])
@pytest.mark.parametrize('folder', ['', 'below', 'elsewhere/below'])
def test_the_file_says_what_was_derived(text, hooks, folder, tmp_path):
    """Read by MMEngine, it equals the config derived in memory."""
    base = tmp_path / 'project' / 'base.py'
    base.parent.mkdir()
    base.write_text(text.format(hooks=hooks))
    out = tmp_path / folder / 'new.py'
    out.parent.mkdir(parents=True, exist_ok=True)
    stock = read_stock_config(base)
    changes = derive(stock.cfg, TRAITS)
    source = delta_source(stock, changes, out)
    out.write_text(source)
    found = named(dict(Config.fromfile(out)._cfg_dict))
    expected = named(dict(apply_changes(stock.cfg, changes)._cfg_dict))
    imports = expected.pop('custom_imports')
    if text is OLD:  # classes bring their module along
        assert found.pop('custom_imports') == imports
    for name in ('Linear', 'ReLU', 'TestLoop', 'read_base'):
        found.pop(name, None)
        expected.pop(name, None)
    ours = ('MutualLearning', 'Slimmable', 'SubnetValLoop', 'SubnetTestLoop')
    for name in (*ours, 'BNCalibrationHook'):
        found.pop(name, None)
    assert found == expected


@pytest.mark.parametrize('text', [OLD, NEW], ids=['old', 'new'])
def test_a_readable_file(text, tmp_path):
    """Short lines, and a comment on each change."""
    (tmp_path / 'base.py').write_text(text.format(hooks=''))
    stock = read_stock_config(tmp_path / 'base.py')
    changes = derive(stock.cfg, TRAITS)
    source = delta_source(stock, changes, tmp_path / 'new.py')
    assert ast.get_docstring(ast.parse(source))
    assert max(map(len, source.splitlines())) <= 79
    written = [c for c in changes if text is OLD or c.key != 'custom_imports']
    assert source.count('  # ') >= len(written) - 1
    for change in written:
        words = source.replace('\n', ' ').split()
        assert set(change.why.split()) <= set(words), change.why


def test_names_are_inherited_by_name(tmp_path):
    pytest.importorskip('mmdet')
    name = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    stock = read_stock_config(name)
    source = delta_source(
        stock, derive(stock.cfg, TRAITS), tmp_path / 'new.py'
    )
    assert f'_base_ = [{name!r}]\n' in source


REFUSED = [
    'mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',
    'mmdet::legacy_1.x/mask-rcnn_r50_fpn_1x_coco_v1.py',
]


def write(stock, out):
    changes = derive(stock.cfg, TRAITS)
    write_delta(stock, changes, apply_changes(stock.cfg, changes), out)


@pytest.mark.parametrize('name', REFUSED)
def test_names_that_mmengine_refuses(name, tmp_path):
    """Of the stock configs of three projects, those of two folders."""
    pytest.importorskip('mmdet')
    stock = read_stock_config(name)
    write(stock, tmp_path / 'new.py')
    cfg = Config.fromfile(tmp_path / 'new.py')
    assert cfg.model.wraps == stock.cfg.model.type
    assert cfg.model.backbone.depth == stock.cfg.model.backbone.depth


@pytest.mark.parametrize('text', [OLD, NEW], ids=['old', 'new'])
def test_what_is_read_back(text, tmp_path):
    (tmp_path / 'base.py').write_text(text.format(hooks=''))
    stock = read_stock_config(tmp_path / 'base.py')
    for _ in range(2):  # the same once more
        write(stock, tmp_path / 'new.py')
    assert (
        Config.fromfile(tmp_path / 'new.py').model.mutual.resolution[0] == 64
    )
    (tmp_path / 'base.py').write_text(text.format(hooks='total_epochs = 9'))
    with pytest.raises(ConfigError, match='another total_epochs than .*base'):
        write(stock, tmp_path / 'other.py')
    with pytest.raises(ConfigError, match="read: name it 'zz.py'"):
        write(stock, tmp_path / 'zz.txt')
    (tmp_path / 'base.py').write_text('model = dict(')
    with pytest.raises(ConfigError, match='base.py.* cannot be inherited by'):
        write(stock, tmp_path / 'other.py')
    assert {p.name for p in tmp_path.iterdir()} == {'base.py', 'new.py'}


def test_names_that_python_cannot_import(tmp_path):
    (tmp_path / 'a-base.py').write_text(NEW.format(hooks=''))
    stock = read_stock_config(tmp_path / 'a-base.py')
    with pytest.raises(ConfigError, match="but 'a-base' is none: rename it"):
        delta_source(stock, derive(stock.cfg, TRAITS), tmp_path / 'new.py')


def test_memory():
    stock = read_stock_config(Config(dict(model=dict(type='A'))))
    with pytest.raises(ConfigError, match='in memory cannot be inherited'):
        delta_source(stock, [], 'new.py')
