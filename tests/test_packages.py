"""What is missing, and what is installed twice, is said before an import."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOAD = """
import runpy
import sys
sys.path.insert(0, {folder!r})
check = runpy.run_path({file!r})['check_packages']
"""


def install(folder, module, *packages):
    """Make a module, and the records of packages that provide it."""
    (folder / module).mkdir(parents=True, exist_ok=True)
    (folder / module / '__init__.py').touch()
    for package in packages:
        name, _, version = package.partition('==')
        record = folder / f'{name.replace("-", "_")}-{version}.dist-info'
        record.mkdir()
        (record / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
        )


def check(folder):
    """Return what an interpreter with nothing else says, or None."""
    code = LOAD.format(
        folder=str(folder), file=str(ROOT / 'mutualnet_mm/packages.py')
    )
    done = subprocess.run(
        [sys.executable, '-S', '-c', f'{code}\ncheck()'],
        env={},
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        assert not done.stderr
        return None
    error = done.stderr.splitlines()[-1]
    assert error.startswith('ImportError: ')
    return error.partition(': ')[2]


@pytest.fixture
def stock(tmp_path):
    install(tmp_path, 'mmengine', 'mmengine==0.10.7')
    install(tmp_path, 'mmcv', 'mmcv==2.1.0')
    return tmp_path


def test_one_of_each(stock):
    assert check(stock) is None
    install(stock, 'mmdet', 'mmdet==3.3.0')
    install(stock, 'mmpretrain')  # of a clone, which has no record here
    assert check(stock) is None


@pytest.mark.parametrize('missing', ['mmengine', 'mmcv'])
def test_missing(missing, tmp_path):
    other = {'mmengine': 'mmcv', 'mmcv': 'mmengine'}[missing]
    install(tmp_path, other, f'{other}==1.0')
    said = check(tmp_path)
    assert said.startswith(f'mutualnet_mm needs {missing}, which is not')
    assert f'onedl-{missing}' in said


@pytest.mark.parametrize(
    ('module', 'other'),
    [
        ('mmengine', 'onedl-mmengine==0.10.12'),
        ('mmcv', 'onedl-mmcv==2.3.6'),
        ('mmcv', 'mmcv-lite==2.0.1'),
        ('mmdet', 'onedl-mmdetection==3.5.1'),
        ('mmpretrain', 'onedl-mmpretrain==1.3.6'),
    ],
)
def test_two_of_one(module, other, stock):
    if module in ('mmdet', 'mmpretrain'):
        install(stock, module, f'{module}==1.0')
    install(stock, module, other)
    said = check(stock)
    assert f' and {other.replace("==", " ")} all provide {module},' in said
    assert f'(pip uninstall {module} {other.partition("==")[0]})' in said


def test_two_with_the_same_files(stock):
    install(stock, 'mmcv', 'mmcv-lite==2.1.0')
    assert check(stock) is None


def test_another_folder_is_not_mixed(stock, tmp_path):
    """As a virtual environment with the packages of the system has it."""
    install(tmp_path / 'later', 'mmengine', 'onedl-mmengine==0.10.12')
    code = LOAD.format(
        folder=str(tmp_path / 'later'),
        file=str(ROOT / 'mutualnet_mm/packages.py'),
    )
    first = f'sys.path.insert(0, {str(stock)!r})'
    subprocess.run(
        [sys.executable, '-S', '-c', f'{code}\n{first}\ncheck()'], check=True
    )
