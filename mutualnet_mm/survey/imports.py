# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the processes of a survey share: imported once, before they fork."""

from contextlib import suppress
from importlib import import_module

from . import one_config  # noqa: F401

for _project in ('mmdet', 'mmpretrain', 'mmaction'):
    with suppress(ImportError):
        for _part in ('models', 'datasets', 'datasets.transforms'):
            import_module(f'{_project}.{_part}')
