"""tools/*.sh: ``--help`` is printed, and nothing is set up for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / 'tools'


def ask(script, *arguments):
    done = subprocess.run(
        ['bash', script, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.fixture
def alone(tmp_path):
    """A copy of the scripts, beside which is no environment."""
    (tmp_path / 'tools').mkdir()
    for file in TOOLS.glob('*.sh'):
        shutil.copy(file, tmp_path / 'tools')
    return tmp_path / 'tools'


@pytest.mark.parametrize('option', ['-h', '--help'])
@pytest.mark.parametrize(
    'name', sorted(file.name for file in TOOLS.glob('*.sh'))
)
def test_help(name, option, alone):
    shown = ask(alone / name, option)
    assert f'Usage: {name}' in shown
    lines = (TOOLS / name).read_text().split('\n\n')[0].splitlines()
    assert shown.splitlines()[0] == lines[1].lstrip('# ')
    assert 'set -euo' not in shown and '#' not in shown
    assert not (alone.parent / '.venv').exists()


@pytest.mark.subprocess
def test_help_of_the_quick_start_is_its_options(alone):
    """Wherever it stands; from the environment, if there is one."""
    shutil.copy(TOOLS / 'quickstart.py', alone)
    (alone.parent / '.venv/bin').mkdir(parents=True)
    python = alone.parent / '.venv/bin/python'
    python.write_text(f'#!/bin/sh\nPYTHONPATH={TOOLS.parent} exec ')
    with python.open('a') as file:
        file.write(f'{sys.executable} "$@"\n')
    python.chmod(0o755)
    shown = ask(alone / 'quickstart.sh', '--task', 'cls', '--help')
    assert '--work-dir' in shown and '--cfg-options' in shown
    assert sorted(p.name for p in alone.parent.iterdir()) == ['.venv', 'tools']
