"""A copy of what the package is built from, so that no clone is touched."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ('mutualnet_mm', 'configs', 'tools', 'demo', 'requirements')
LEFT_OUT = shutil.ignore_patterns('__pycache__', '.mim')


def copy_sources(target):
    """Copy them into a folder, with a few of the files that stay behind."""
    for path in sorted(ROOT.iterdir()):
        if path.name in FOLDERS:
            shutil.copytree(path, target / path.name, ignore=LEFT_OUT)
        elif path.is_file():
            shutil.copy(path, target)
    for name in ('tests/test_x.py', 'docs/x.md', 'projects/x.py'):
        (target / name).parent.mkdir(parents=True)
        (target / name).write_text('')
    return target


def build(sources, kind, out):
    """Build an sdist, a wheel or an editable wheel; return the file."""
    program = (
        'import sys; from setuptools import build_meta; '
        f'print(build_meta.build_{kind}(sys.argv[1]))'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', program, out],
        cwd=sources,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Path(out) / done.stdout.splitlines()[-1]
