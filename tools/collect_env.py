#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Print the versions of what is installed: for reports of errors.

MMEngine's report of Python, PyTorch, CUDA and the compiler, and the packages
that mutualnet_mm works with.
"""

from importlib import metadata

from mmengine.utils.dl_utils import collect_env

from mutualnet_mm.cli import tool_parser

PACKAGES = (
    *('mutualnet_mm', 'mmpretrain', 'mmdet', 'mmaction2'),
    *('mmcv', 'mmcv-lite', 'numpy', 'setuptools'),
    *('onnx', 'onnxruntime', 'openmim'),
)


def version(package: str) -> str:
    """Version of an installed package, or that there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return 'not installed'


def main() -> None:
    tool_parser(__doc__).parse_args()
    versions = {package: version(package) for package in PACKAGES}
    for name, value in {**collect_env(), **versions}.items():
        print(f'{name}: {value}')


if __name__ == '__main__':
    main()
