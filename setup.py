"""Packaging of mutualnet_mm; everything it reads lies beside it."""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# What a user needs of a clone besides the package. OpenMMLab's packages keep
# it in PACKAGE/.mim, where MMEngine looks for configs that others inherit
# (`_base_ = 'mutualnet_mm::...'`), and mim for tools.
EXTRAS = ('configs', 'tools', 'demo', 'model-index.yml')


class BuildWithExtras(build_py):
    """Puts configs and tools into the package, in ``mutualnet_mm/.mim``."""

    def run(self):
        """Copy them for a wheel, link them for an editable install."""
        super().run()
        editable = getattr(self, 'editable_mode', False)
        package = Path(ROOT if editable else self.build_lib, 'mutualnet_mm')
        folder = package / '.mim'
        if folder.exists():  # of an earlier build
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        for name in EXTRAS:
            if (ROOT / name).exists():  # a partial checkout may lack some
                (link if editable else copy)(ROOT / name, folder / name)


def copy(source, target):
    """Copy a file or a folder.

    Without what running it left behind, and without the scripts that set up a
    clone or test it.
    """
    if source.is_dir():
        ignored = shutil.ignore_patterns(
            *('__pycache__', '*.py[cod]', '.*'),
            *('quickstart.sh', 'run_tests.sh', 'setup_env.sh'),
        )
        shutil.copytree(source, target, ignore=ignored)
    else:
        shutil.copy2(source, target)


def link(source, target):
    """Link to a file or a folder; copy it where links are not allowed."""
    try:
        relative = os.path.relpath(source, target.parent)
        target.symlink_to(relative, target_is_directory=source.is_dir())
    except OSError:  # Windows, unless in developer mode
        copy(source, target)


def read_version():
    """Read the version without importing the package, which needs torch."""
    text = (ROOT / 'mutualnet_mm' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '(.+)'", text).group(1)


def read_readme():
    """Read the long description; a partial checkout may lack it."""
    path = ROOT / 'README.md'
    return path.read_text(encoding='utf-8') if path.exists() else ''


def read_requirements(*names):
    """Read the requirements of the named files, sorted, without comments."""
    lines = set()
    for name in names:
        path = ROOT / 'requirements' / f'{name}.txt'
        for line in path.read_text(encoding='utf-8').splitlines():
            lines.add(line.split('#')[0].strip())
    return sorted(lines - {''})


# mmengine and mmcv are left to the user: mmcv compiles against the torch at
# hand, mmcv-lite takes its place where no compiled operator is needed, and
# OneDL's packages, over which they would be laid, have the same modules. Ours
# says on import what is missing, and what is there twice.
install_requires = read_requirements('runtime')

setup(
    name='mutualnet_mm',
    version=read_version(),
    description='MutualNet for OpenMMLab: one network, many widths and '
    'resolutions, for classification, detection and video',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='computer vision, adaptive inference, slimmable networks',
    packages=find_packages(include=['mutualnet_mm', 'mutualnet_mm.*']),
    package_data={'mutualnet_mm': ['py.typed']},
    py_modules=['mutualnet_mm_command'],
    entry_points={
        'console_scripts': ['mutualnet = mutualnet_mm_command:main']
    },
    cmdclass={'build_py': BuildWithExtras},
    python_requires='>=3.9',
    install_requires=install_requires,
    extras_require={
        'all': read_requirements(
            *('cls', 'det', 'video'),
            *('quickstart', 'deploy', 'demo', 'analysis'),
        ),
        'analysis': read_requirements('analysis'),
        'cls': read_requirements('cls'),
        'det': read_requirements('det'),
        'video': read_requirements('video'),
        'quickstart': read_requirements('quickstart'),
        'deploy': read_requirements('deploy'),
        'demo': read_requirements('demo'),
        'tests': read_requirements('tests'),
        'mim': read_requirements('mminstall'),
    },
    classifiers=[
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    zip_safe=False,
)
