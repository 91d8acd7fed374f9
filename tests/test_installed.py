"""The wheel, installed where no clone is, in a project of a user's own."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from packaging_tree import build, copy_sources

PROJECT = Path(__file__).parent / 'helpers/throw_away_project.py'


def clean_environment():
    """The variables of this process, but for what leads to the clone."""
    hidden = ('PYTHONPATH', 'VIRTUAL_ENV')
    return {k: v for k, v in os.environ.items() if k not in hidden}


@pytest.fixture(scope='module')
def python(tmp_path_factory):
    """Python of an environment with the wheel; the rest is borrowed."""
    folder = tmp_path_factory.mktemp('installed')
    (folder / 'sources').mkdir()
    wheel = build(copy_sources(folder / 'sources'), 'wheel', folder)
    venv.create(folder / 'venv', with_pip=False)
    scripts = 'Scripts' if os.name == 'nt' else 'bin'
    python = folder / 'venv' / scripts / 'python'
    subprocess.run(
        [
            *(sys.executable, '-m', 'pip', '--python', python, 'install'),
            *('--no-deps', '--no-index', '-q', wheel),
        ],
        check=True,
        cwd=folder,
        env=clean_environment(),
    )
    # A line of a .pth file brings packages, but none of theirs: not the
    # editable install of the clone.
    ask = 'import sysconfig; print(sysconfig.get_path("purelib"))'
    site = subprocess.check_output([python, '-c', ask], text=True).strip()
    Path(site, 'borrowed.pth').write_text(sysconfig.get_path('purelib'))
    return python


@pytest.mark.nightly
@pytest.mark.subprocess
def test_throw_away_project(python, tmp_path):
    pytest.importorskip('mmpretrain')
    pytest.importorskip('sklearn')
    environment = clean_environment()
    ask = 'import mutualnet_mm; print(mutualnet_mm.__file__)'
    where = subprocess.check_output(
        [python, '-c', ask], cwd=tmp_path, env=environment, text=True
    )
    assert python.parents[1] in Path(where.strip()).parents
    done = subprocess.run(
        [python, PROJECT],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert done.stdout.endswith('the throw-away project works\n')
