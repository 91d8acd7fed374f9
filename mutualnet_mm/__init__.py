# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""MutualNet for OpenMMLab: one network, many widths and resolutions.

``custom_imports = dict(imports=['mutualnet_mm'])`` in a config registers the
models, transforms, hooks and loops. None of mmpretrain, mmdet and mmaction2
is needed to import this package.
"""

from .packages import check_packages

check_packages()

from . import compat  # noqa: E402

compat.apply()

from . import datasets, engine, models  # noqa: E402
from .errors import ConfigError, UsageError  # noqa: E402
from .sampler import SubnetSampler  # noqa: E402
from .subnet import Subnet, SubnetSpace  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = [
    'ConfigError',
    'Subnet',
    'SubnetSampler',
    'SubnetSpace',
    'UsageError',
    '__version__',
    'datasets',
    'engine',
    'models',
]
