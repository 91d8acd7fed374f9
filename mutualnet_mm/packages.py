# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Which packages provide OpenMMLab's modules, checked before their import.

OneDL maintains OpenMMLab's packages under other names, ``onedl-mmengine`` for
``mmengine``, with the same modules. Installed beside each other, the files of
one lie over those of the other.
"""

import importlib.util
from importlib.metadata import distributions
from pathlib import Path
from typing import Dict, Tuple

# By module, the packages that provide it.
_PROVIDERS = {
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
}
# Those that we cannot do without. Installing this package installs neither,
# which would lay one provider over another.
_NEEDED = ('mmengine', 'mmcv')


def check_packages() -> None:
    """Check that each module of OpenMMLab has one package, or none.

    Nothing is imported. Packages of one version, such as mmcv and mmcv-lite
    2.1.0, have the same files, and those in other folders are not mixed.

    Raises:
        ImportError: If MMEngine or MMCV is missing, or if packages of several
            versions are installed in one folder.
    """
    for module, names in _PROVIDERS.items():
        spec = importlib.util.find_spec(module)
        folders = spec.submodule_search_locations if spec else None
        if not folders:
            if module in _NEEDED:
                raise ImportError(
                    f'mutualnet_mm needs {module}, which is not installed: '
                    f'install one of {", ".join(names)}'
                )
            continue
        found = _installed(Path(next(iter(folders))).parent, names)
        if len(set(found.values())) > 1:
            versions = [f'{name} {found[name]}' for name in found]
            raise ImportError(
                f'{" and ".join(versions)} all provide {module}, and files of '
                'one lie over those of another: uninstall them (pip uninstall '
                f'{" ".join(found)}), then install one'
            )


def _installed(folder: Path, names: Tuple[str, ...]) -> Dict[str, str]:
    """Return the versions of those packages that are in a folder."""
    return {
        name: package.version
        for name in names
        for package in distributions(name=name, path=[str(folder)])
    }
