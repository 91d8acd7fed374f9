# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""``adaptive.pth``: all that a network needs to run at any budget."""

import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor

from ..checked_json import CHECKSUM, json_sha256
from ..engine import SubnetStatistics
from ..errors import UsageError, is_count, is_number
from ..files import atomic_write
from ..query_table import QueryTable, table_from_dict, table_to_dict
from ..query_table.fingerprints import weights_fingerprint
from ..slimmable import Statistics
from ..tensor_files import load_tensors, save_tensors

SCHEMA = 1
_PACKAGES = (
    *('mutualnet_mm', 'torch', 'mmengine', 'mmcv'),
    *('mmpretrain', 'mmdet', 'mmaction'),
)
# Types of the fields.
_KINDS: Dict[str, Any] = dict(
    config=str,
    rounding=str,
    weights=dict,
    statistics=dict,
    width=(tuple, list),
    calibration=dict,
    dataset_meta=dict,
    versions=dict,
    channels=(str, type(None)),
)


def loaded_versions() -> Dict[str, str]:
    """Versions of this package and its dependencies, where imported."""
    modules = {name: sys.modules.get(name) for name in _PACKAGES}
    return {
        name: str(getattr(module, '__version__', 'unknown'))
        for name, module in modules.items()
        if module is not None
    }


def _sha256(content: Mapping[str, Any]) -> str:
    """Checksum of all that was measured together; text may be edited."""
    tensors = dict(content['weights'])
    for subnet, statistics in content['statistics'].items():
        for layer, pair in statistics.items():
            for what, tensor in zip(('mean', 'variance'), pair):
                tensors[f'{subnet}: {what} of {layer}'] = tensor
    parts = [weights_fingerprint(tensors), content['table']]
    if content.get('channels') is not None:  # older files lack it
        parts.append(content['channels'])
    return json_sha256(parts)


def _is_unchanged(content: Mapping[str, Any]) -> bool:
    try:
        return content[CHECKSUM] == _sha256(content)
    except TypeError:  # the table holds what no JSON file could
        return False


def _wrong_part(content: Mapping[str, Any]) -> Optional[str]:
    """Name a part that is not of the type that it is written with."""
    weights, bank = content['weights'], content['statistics']
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            return f'its weight {key!r} is a {type(value).__name__}'
    for subnet, statistics in bank.items():
        if not isinstance(subnet, str) or not isinstance(statistics, dict):
            return f'its statistics of {subnet!r} are no layers'
        for layer, pair in statistics.items():
            if not isinstance(layer, str) or not _is_pair(pair):
                return f'its statistics of {subnet} do not fit layer {layer!r}'
    if len(content['width']) != 2 or not all(map(is_number, content['width'])):
        return f'its width is {content["width"]!r}'
    classes = content['dataset_meta'].get('classes', [])
    if not isinstance(classes, (list, tuple)):
        return f'its classes are {type(classes).__name__}'
    return None


def _is_pair(value: Any) -> bool:
    """Whether it is a mean and a variance of the same channels."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(
            isinstance(t, Tensor) and t.is_floating_point() and t.dim() == 1
            for t in value
        )
        and len(value[0]) == len(value[1])
    )


def _has_scores(table: QueryTable, other: QueryTable) -> bool:
    """Whether a table has all scores of another one."""
    found = {entry.subnet: entry.metrics for entry in table.entries}
    return (table.metric, table.num_images) == (
        other.metric,
        other.num_images,
    ) and all(
        repr(found.get(entry.subnet)) == repr(entry.metrics)  # nan, too
        for entry in other.entries
    )


def _are_equal(own: Optional[Statistics], other: Optional[Statistics]) -> bool:
    if own is None or other is None:
        return own is other
    return own.keys() == other.keys() and all(
        torch.equal(a.cpu(), b.cpu())
        for layer in own
        for a, b in zip(own[layer], other[layer])
    )


@dataclass
class AdaptiveFile:
    """What ``adaptive.pth`` holds: tensors and plain containers only.

    Args:
        config (str): Source of the config, for
            ``Config.fromstring(config, '.py')``.
        weights (dict): ``state_dict`` of the model; the running statistics in
            it are the full network's.
        statistics (dict): Statistics of the other subnets of the table, and
            of those that were calibrated since:
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
        channels (str, optional): What was found of the channels of the
            network that ``config`` builds, see
            :func:`~.stored_model.find_channels`: it need not be traced where
            the file is opened. Defaults to None: it is.
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
    channels: Optional[str] = None

    def save(self, path: Union[str, Path]) -> None:
        """Write the file; a reader sees the old one or all of the new one.

        Raises:
            UsageError: If it cannot be written.
        """
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content['table'] = table_to_dict(self.table)
        content[CHECKSUM] = _sha256(content)
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

    def updated(
        self, bank: SubnetStatistics, path: Union[str, Path]
    ) -> 'AdaptiveFile':
        """This file with new statistics, as it is written to a path.

        A file there, of the same weights and config, may have got subnets and
        latencies since this one was read: they are kept.

        Args:
            bank (dict): Statistics that are now in use, as ``statistics``.
            path (str or Path): Where it will be saved.

        Raises:
            UsageError: If the file there has other scores, or if a subnet was
                calibrated that it has got, with the score of other statistics.
        """
        other = self.earlier(path)
        if other is None or other.config != self.config:
            return replace(self, statistics=bank)
        new = {
            name: statistics
            for name, statistics in bank.items()
            if not _are_equal(self.statistics.get(name), statistics)
        }
        theirs = other.statistics
        # Where both have figures of a device, the newer ones count.
        table = self.table.with_latencies_of(other.table)
        if _has_scores(other.table, self.table):
            table = other.table.with_latencies_of(table)
            changed = other.changed_scores({**theirs, **new})
            if changed:
                raise UsageError(
                    f'{changed[0]} was calibrated, and {str(path)!r} has got '
                    'it since, with the score of other statistics: load that, '
                    'or write elsewhere'
                )
        elif _has_scores(self.table, other.table):
            own = {str(entry.subnet) for entry in self.table.entries}
            theirs = {n: s for n, s in theirs.items() if n not in own}
        else:
            raise UsageError(
                f'{str(path)!r} has a table of other scores, of the same '
                'weights: write elsewhere, or remove it'
            )
        statistics = {**bank, **theirs, **new}
        return replace(self, statistics=statistics, table=table)

    def changed_scores(self, bank: SubnetStatistics) -> List[str]:
        """Subnets of the table that had other statistics when tested.

        Args:
            bank (dict): Statistics that are now in use, as ``statistics``.
                The full network's were the running ones if it had none.
        """
        full = str(self.table.full)
        return [
            name
            for name in (str(entry.subnet) for entry in self.table.entries)
            if (name in self.statistics or name == full)
            and not _are_equal(self.statistics.get(name), bank.get(name))
        ]

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
                f'{name} is damaged, or not an adaptive.pth, which mutualnet '
                f'table makes of a checkpoint: {type(error).__name__}'
            ) from error
        schema = content.get('schema') if isinstance(content, dict) else None
        if schema is None or not is_count(schema):
            raise UsageError(
                f'{name} is not an adaptive.pth: make one with mutualnet table'
            )
        if schema > SCHEMA:
            raise UsageError(
                f'{name} has schema {schema}, this release reads up to '
                f'{SCHEMA}: update mutualnet_mm'
            )
        content.setdefault('dataset_meta', {})  # older files lack these
        content.setdefault('channels', None)
        missing = [f.name for f in fields(cls) if f.name not in content]
        if missing:
            raise UsageError(f'{name} is damaged: it has no {missing[0]}')
        for key, kind in _KINDS.items():
            if not isinstance(content[key], kind):
                raise UsageError(
                    f'{name} is damaged: its {key} is of type '
                    f'{type(content[key]).__name__}'
                )
        wrong = _wrong_part(content)
        if wrong is not None:
            raise UsageError(f'{name} is damaged: {wrong}')
        table = table_from_dict(content['table'], f'the table of {name}')
        # Files of earlier releases have none.
        if CHECKSUM in content and not _is_unchanged(content):
            raise UsageError(
                f'{name} is damaged: weights, statistics and table are not '
                'those that were written together: build the table again'
            )
        known = {f.name: content[f.name] for f in fields(cls)}
        return cls(**dict(known, table=table))
