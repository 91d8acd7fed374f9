# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""``adaptive.pth``: all that a network needs to run at any budget."""

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor

from ..engine import SubnetStatistics
from ..errors import UsageError
from ..files import atomic_write, load_tensors, save_tensors
from ..query_table import QueryTable, table_from_dict, table_to_dict
from ..query_table.fingerprints import weights_fingerprint

SCHEMA = 1
_PACKAGES = (
    *('mutualnet_mm', 'torch', 'mmengine', 'mmcv'),
    *('mmpretrain', 'mmdet', 'mmaction'),
)
# Types of the fields that are not checked further when they are read.
_KINDS: Dict[str, Any] = dict(
    config=str,
    weights=dict,
    statistics=dict,
    width=(tuple, list),
    calibration=dict,
    dataset_meta=dict,
    versions=dict,
)


def loaded_versions() -> Dict[str, str]:
    """Versions of this package and its dependencies, where imported."""
    modules = {name: sys.modules.get(name) for name in _PACKAGES}
    return {
        name: str(getattr(module, '__version__', 'unknown'))
        for name, module in modules.items()
        if module is not None
    }


@dataclass
class AdaptiveFile:
    """What ``adaptive.pth`` holds: tensors and plain containers only.

    Args:
        config (str): Source of the config, for
            ``Config.fromstring(config, '.py')``.
        weights (dict): ``state_dict`` of the model; the running statistics in
            it are the full network's.
        statistics (dict): Statistics of each other subnet of the table,
            ``{str(subnet): {layer: (mean, variance)}}``.
        table (QueryTable): Query table of the same weights.
        width (tuple[float]): Narrowest and widest trained width.
        rounding (str): Policy that turns widths into channels.
        calibration (dict): Arguments of ``BNCalibrationHook`` by which the
            statistics were collected; ``dataloader=None`` stands for the
            config's ``train_dataloader``.
        dataset_meta (dict): Metadata of the test data set, such as
            ``classes``. Defaults to nothing.
        versions (dict): Versions of the packages that wrote the file.
            Defaults to those that are imported.
    """

    config: str
    weights: Dict[str, Tensor]
    statistics: SubnetStatistics
    table: QueryTable
    width: Tuple[float, float]
    rounding: str
    calibration: Dict[str, Any]
    dataset_meta: Dict[str, Any] = field(default_factory=dict)
    versions: Dict[str, str] = field(default_factory=loaded_versions)

    def save(self, path: Union[str, Path]) -> None:
        """Write the file; a reader sees the old one or all of the new one.

        Raises:
            UsageError: If it cannot be written.
        """
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content['table'] = table_to_dict(self.table)
        with atomic_write(path) as file:
            save_tensors(dict(content, schema=SCHEMA), file)

    def earlier(self, path: Union[str, Path]) -> Optional['AdaptiveFile']:
        """Return the file at ``path`` if it is of the same weights.

        What it has was measured with them: keep it when it is replaced.
        """
        try:
            found = AdaptiveFile.load(path)
        except UsageError:  # there is none
            return None
        return found if self.same_weights(found.weights) else None

    def same_weights(self, weights: Mapping[str, Tensor]) -> bool:
        """Whether these are the weights, bit by bit."""
        return weights_fingerprint(self.weights) == weights_fingerprint(
            weights
        )

    @classmethod
    def load(
        cls,
        path: Union[str, Path],
        map_location: Optional[Union[str, torch.device]] = 'cpu',
    ) -> 'AdaptiveFile':
        """Read a file without running any code that it may hold.

        Args:
            path (str or Path): File written by :meth:`save`.
            map_location (str or torch.device, optional): Where tensors go.
                Defaults to ``'cpu'``.

        Raises:
            UsageError: If the file is missing, damaged or of another kind,
                or if a newer release wrote it.
        """
        name = repr(str(path))
        if not Path(path).is_file():
            raise UsageError(f'adaptive file {name} does not exist')
        try:
            content = load_tensors(path, map_location)
        except Exception as error:  # what it raises depends on the damage
            raise UsageError(
                f'{name} is damaged, or not an adaptive.pth: '
                f'{type(error).__name__}'
            ) from error
        schema = content.get('schema') if isinstance(content, dict) else None
        if not isinstance(schema, int):
            raise UsageError(
                f'{name} is not an adaptive.pth: make one with build_table'
            )
        if schema > SCHEMA:
            raise UsageError(
                f'{name} has schema {schema}, this release reads up to '
                f'{SCHEMA}: update mutualnet_mm'
            )
        content.setdefault('dataset_meta', {})  # older files lack it
        missing = [f.name for f in fields(cls) if f.name not in content]
        if missing:
            raise UsageError(f'{name} is damaged: it has no {missing[0]}')
        for key, kind in _KINDS.items():
            if not isinstance(content[key], kind):
                raise UsageError(
                    f'{name} is damaged: its {key} is of type '
                    f'{type(content[key]).__name__}'
                )
        table = table_from_dict(content['table'], f'the table of {name}')
        known = {f.name: content[f.name] for f in fields(cls)}
        return cls(**dict(known, table=table))
