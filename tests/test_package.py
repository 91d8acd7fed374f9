"""What is built of the clone: a wheel, an sdist, an editable install."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging_tree import ROOT, build, copy_sources

pytestmark = pytest.mark.subprocess
CONFIGS = sorted(p.relative_to(ROOT) for p in ROOT.glob('configs/**/*.py'))
SCRIPTS = sorted(
    p.relative_to(ROOT)
    for kind in ('dist', 'slurm')
    for p in ROOT.glob(f'tools/{kind}_*.sh')
)
TOOLS = [
    *sorted(p.relative_to(ROOT) for p in ROOT.glob('tools/**/*.py')),
    *SCRIPTS,
]


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    return copy_sources(tmp_path_factory.mktemp('sources'))


@pytest.fixture(scope='module')
def wheel(sources, tmp_path_factory):
    return build(sources, 'wheel', tmp_path_factory.mktemp('wheel'))


def test_wheel_holds_configs_and_tools(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        for path in [*CONFIGS, *TOOLS]:
            inside = f'mutualnet_mm/.mim/{path.as_posix()}'
            assert file.read(inside) == (ROOT / path).read_bytes()
    assert {'mutualnet_mm/py.typed', 'mutualnet_mm_command.py'} <= names


def test_wheel_asks_for_no_package_of_openmmlab(wheel):
    """It would be laid over OneDL's, which have the same modules."""
    with zipfile.ZipFile(wheel) as file:
        (record,) = [n for n in file.namelist() if n.endswith('/METADATA')]
        lines = file.read(record).decode().splitlines()
    asked = [line for line in lines if line.startswith('Requires-Dist: ')]
    always = [line for line in asked if 'extra ==' not in line]
    assert any('torch' in line for line in always)
    assert not [line for line in always if ': mm' in line or 'onedl' in line]


def test_wheel_holds_every_module(wheel):
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob('mutualnet_mm/**/*.py')
        if '.mim' not in path.parts
    }
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if name.endswith('.py')}
    assert modules == {
        name
        for name in names
        if '/.mim/' not in name and name != 'mutualnet_mm_command.py'
    }


def test_wheel_holds_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    tops = {name.split('/')[0].split('-')[0] for name in names}
    assert tops == {'mutualnet_mm', 'mutualnet_mm_command.py'}
    inside = {name.split('/')[2] for name in names if '/.mim/' in name}
    assert inside <= {'configs', 'tools', 'demo', 'model-index.yml'}
    assert not [n for n in names if n.endswith(('.pyc', '.log'))]
    scripts = {Path(n).name for n in names if n.endswith('.sh')}
    assert scripts == {path.name for path in SCRIPTS} and len(scripts) == 4


@pytest.mark.nightly
def test_sdist_builds_the_same_wheel(sources, wheel, tmp_path):
    packed = build(sources, 'sdist', tmp_path)
    with tarfile.open(packed) as file:
        names = file.getnames()
        file.extractall(tmp_path)
    unpacked = tmp_path / packed.name[: -len('.tar.gz')]
    assert not [n for n in names if '/tests/' in n or '/projects/' in n]
    (tmp_path / 'again').mkdir()
    again = build(unpacked, 'wheel', tmp_path / 'again')
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


@pytest.mark.nightly
def test_second_wheel_forgets_what_was_removed(sources, tmp_path):
    extra = sources / 'configs/removed.py'
    extra.write_text('')
    try:
        build(sources, 'wheel', tmp_path)
    finally:
        extra.unlink()
    with zipfile.ZipFile(build(sources, 'wheel', tmp_path)) as file:
        assert not [n for n in file.namelist() if 'removed' in n]


@pytest.mark.parametrize(
    'links',
    [True, pytest.param(False, marks=pytest.mark.nightly)],
    ids=['links', 'copies'],
)
def test_editable_install(links, sources, tmp_path, monkeypatch):
    if not links:  # as on Windows
        (tmp_path / 'sitecustomize.py').write_text(
            'import pathlib\n'
            'def refuse(*args, **kwargs):\n'
            '    raise OSError("no links")\n'
            'pathlib.Path.symlink_to = refuse\n'
        )
        monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    build(sources, 'editable', tmp_path)
    folder = sources / 'mutualnet_mm/.mim'
    assert sorted(os.listdir(folder)) == sorted(
        name
        for name in ('configs', 'tools', 'demo', 'model-index.yml')
        if (sources / name).exists()
    )
    for name in ('configs', 'tools'):
        assert (folder / name).is_symlink() == links
    assert not links or not os.readlink(folder / 'configs').startswith('/')
    for path in [*CONFIGS, *TOOLS]:
        assert (folder / path).read_bytes() == (ROOT / path).read_bytes()
    # A wheel built from a clone that is installed so holds files, no links.
    with zipfile.ZipFile(build(sources, 'wheel', tmp_path)) as file:
        assert f'mutualnet_mm/.mim/{CONFIGS[0].as_posix()}' in file.namelist()


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
    """A folder for PYTHONPATH with what the wheel holds."""
    folder = tmp_path_factory.mktemp('site')
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


# A detector and a classifier of another project, which inherit ours and read
# values of theirs.
OWN = {
    'det.py': """
_base_ = ['mutualnet_mm::detection/mutual-mask-rcnn_vgg16_fpn_8xb2-2x_coco.py']
model = dict(mutual=dict(width_range=(0.5, 1.0)))
test_pipeline = _base_.test_pipeline
resize = _base_.resize
""",
    'cls.py': """
_base_ = 'mutualnet_mm::classification/mutual-resnet14_1xb64_digits.py'
train_cfg = dict(max_epochs=1)
train_pipeline = [dict(type='LoadImageFromFile'), *_base_.test_pipeline[1:]]
""",
    'cls.yml': """
_base_: mutualnet_mm::classification/mutual-resnet14_1xb64_digits.py
train_cfg: {max_epochs: 1}
""",
}
INHERIT = """
import sys
import mutualnet_mm
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope, init_default_scope
from mutualnet_mm.apis import build_model, load_config

def scopes(node):
    if isinstance(node, dict):
        if '_scope_' in node:
            yield node._scope_
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from scopes(item)

name = 'classification/mutual-resnet14_1xb64_digits.py'
full = f'mutualnet_mm::{name}'
cfg, yml = map(Config.fromfile, ('cls.py', 'cls.yml'))
shipped = get_config(full)
assert cfg.train_cfg.max_epochs == yml.train_cfg.max_epochs == 1
assert shipped.train_cfg.max_epochs == 20
assert cfg.model == yml.model == shipped.model
for found in (cfg, yml, shipped):
    assert 'mutualnet_mm' not in set(scopes(found._cfg_dict))
assert load_config(full, stages=()).model == shipped.model
assert load_config(full[:-3], stages=()).work_dir == (
    'work_dirs/mutual-resnet14_1xb64_digits')
init_default_scope(cfg.default_scope)
build_model(cfg)

det = Config.fromfile('det.py')
assert det.default_scope == 'mmdet'
assert det.model.mutual.width_range == (0.5, 1.0)
assert 'mutualnet_mm' not in set(scopes(det._cfg_dict))
init_default_scope('mmdet')
from mmcv.transforms import Compose
from mmdet.utils import register_all_modules
register_all_modules(init_default_scope=False)
Compose(det.test_pipeline)
print(mutualnet_mm.__file__)
"""


@pytest.mark.parametrize(
    'kind',
    ['wheel', pytest.param('editable', marks=pytest.mark.nightly)],
)
def test_other_projects_inherit_our_configs(kind, site, sources, tmp_path):
    for scope in ('mmpretrain', 'mmdet'):
        pytest.importorskip(scope)
    folder = site
    if kind == 'editable':
        build(sources, 'editable', tmp_path)
        folder = sources
    for name, text in OWN.items():
        (tmp_path / name).write_text(text)
    done = run_from(folder, tmp_path, INHERIT)
    assert done.returncode == 0, done.stderr
    where = done.stdout.splitlines()[-1]
    assert Path(where) == folder / 'mutualnet_mm/__init__.py'


def run_from(site, folder, program):
    """Run a program in a folder, with the package of ``site``."""
    return subprocess.run(
        [sys.executable, '-c', program],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
    )


def test_command_finds_the_tools_of_the_wheel(site, tmp_path):
    program = (
        'import mutualnet_mm_command as command\n'
        'print(command.tools_folder(command.package_folder()))\n'
        'command.main(["--help"])'
    )
    done = run_from(site, tmp_path, program)
    assert done.returncode == 0, done.stderr
    folder, _, shown = done.stdout.partition('\n')
    assert Path(folder) == site / 'mutualnet_mm/.mim/tools'
    assert 'Evaluate a grid of subnets' in shown
