"""Packaging of mutualnet_mm; everything it reads lies beside it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


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


# mmcv is left to the user, as in the other OpenMMLab packages: it compiles
# against the torch at hand, and mmcv-lite takes its place where no compiled
# operator is needed.
install_requires = [
    requirement
    for requirement in read_requirements('runtime', 'mminstall')
    if not requirement.startswith('mmcv')
]

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
    python_requires='>=3.8',
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
        'License :: OSI Approved :: Apache Software License',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    zip_safe=False,
)
