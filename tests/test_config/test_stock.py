import pytest
from mmengine.config import Config

from mutualnet_mm import ConfigError
from mutualnet_mm.config.stock import derived_name, read_stock_config


def test_names():
    pytest.importorskip('mmdet')
    name = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco'
    for written in (name, f'{name}.py'):
        stock = read_stock_config(written)
        assert stock.name == f'{name}.py'
        assert stock.cfg.model.type == 'RetinaNet'
        assert not stock.is_new_style
    assert derived_name(stock) == 'mutual-retinanet_r18_fpn_1x_coco.py'


def test_files_and_memory(tmp_path):
    (tmp_path / 'own.py').write_text('model = dict(type="A")')
    stock = read_stock_config(tmp_path / 'own.py')
    assert stock.name is None and stock.stem == 'own'
    stock = read_stock_config(Config(dict(model=dict(type='A'))))
    assert stock.path is None and not stock.is_new_style


@pytest.mark.parametrize(
    'text',
    [
        'from torch.nn import Linear\nmodel = dict(type=Linear)',
        'from mmengine.config import read_base\n'
        'with read_base():\n    from .base import *\n',
    ],
)
def test_new_style(text, tmp_path):
    (tmp_path / 'base.py').write_text('model = dict(type="A")')
    (tmp_path / 'own.py').write_text(text)
    stock = read_stock_config(tmp_path / 'own.py')
    assert stock.is_new_style and derived_name(stock) == 'mutual_own.py'


@pytest.mark.parametrize(
    'written, message',
    [
        ('no.py', "config 'no.py' does not exist"),
        ('numpy::a/b.py', 'numpy:: is no project whose configs'),
        ('mmdet3d::a/b.py', 'mmdet3d is not installed: install mmdet3d'),
        ('mmengine', "config 'mmengine' does not exist"),
        ('broken.py', "config 'broken.py' cannot be read: SyntaxError"),
        ('part.py', "'part.py' has no model with a type"),
    ],
)
def test_refusals(written, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'broken.py').write_text('model = dict(')
    (tmp_path / 'part.py').write_text('optimizer = dict()')
    with pytest.raises(ConfigError) as error:
        read_stock_config(written)
    assert message in str(error.value)


def test_a_missing_name():
    pytest.importorskip('mmdet')
    with pytest.raises(ConfigError, match='does not exist in .*configs'):
        read_stock_config('mmdet::retinanet/no.py')
    with pytest.raises(ConfigError, match='did you mean fcos/fcos_r50-caffe'):
        read_stock_config('mmdet::fcos/fcos_r50-cafe_fpn_gn-head_1x_coco.py')
