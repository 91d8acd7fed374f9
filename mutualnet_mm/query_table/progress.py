# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The finished part of a table, kept so that an interruption loses little."""

import json
import logging
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Union

from mmengine.logging import print_log
from torch import Tensor

from ..checked_json import check_unchanged, checked_json, read_json
from ..errors import UsageError, is_number
from ..files import atomic_write
from ..slimmable import Statistics
from ..tensor_files import load_tensors, save_tensors
from .answers import Answers
from .resampling import Values, values_from_text, values_to_text

Metrics = Dict[str, Optional[float]]

# Of files without a checksum.
_KEYS = {'settings', 'results', 'finished'}


class Progress:
    """Finished results in a folder, consistent at any time.

    Args:
        folder (str or Path): Created if it does not exist.
        settings (Mapping): Plain values that the results depend on. The error
            for other values names the settings that differ.

    Attributes:
        results (dict): Metrics of the finished subnets, by ``str(subnet)``.

    Raises:
        UsageError: If the folder holds unfinished results of other settings,
            is damaged or cannot be written. Finished results of another
            checkpoint are replaced.
    """

    def __init__(
        self, folder: Union[str, Path], settings: Mapping[str, Any]
    ) -> None:
        self._set(folder, settings)
        self.folder.mkdir(parents=True, exist_ok=True)
        has_any = self._file.exists()
        if has_any and self._take_up():
            return
        if has_any:
            print_log(
                f'{str(self.folder)!r} has a finished table of another '
                'checkpoint, which is replaced',
                logger='current',
                level=logging.WARNING,
            )
        self._start()

    def _set(
        self, folder: Union[str, Path], settings: Mapping[str, Any]
    ) -> None:
        self.folder = Path(folder)
        self.results: Dict[str, Metrics] = {}
        self._settings = json.loads(json.dumps(settings))
        self._file = self.folder / 'results.json'
        self._statistics = self.folder / 'statistics.pth'
        self._answers = self.folder / 'answers'
        self._resampled = self.folder / 'resampled'

    @classmethod
    def read(
        cls, folder: Union[str, Path], settings: Mapping[str, Any]
    ) -> Optional['Progress']:
        """Take up what a folder holds, and change nothing in it.

        Args:
            folder (str or Path): As for the class.
            settings (Mapping): As for the class.

        Returns:
            Progress: None if the folder holds nothing, or what another
            checkpoint may replace.

        Raises:
            UsageError: As the class does.
        """
        found = cls.__new__(cls)
        found._set(folder, settings)
        if not found._file.exists() or not found._take_up():
            return None
        return found

    def _start(self) -> None:
        # Left by a run whose results were removed, perhaps of other weights.
        self._statistics.unlink(missing_ok=True)
        for folder in (self._answers, self._resampled):
            for file in folder.glob('*.*'):
                file.unlink()
        self._save()

    def _take_up(self) -> bool:
        """Read what is there; False if it makes way."""
        try:
            content = read_json(self._file)
            settings, results = content['settings'], content['results']
            for part in (settings, results, *results.values()):
                if not isinstance(part, dict):
                    raise TypeError(f'{part!r} is not an object')
            for metrics in results.values():
                for name, value in metrics.items():
                    if value is not None and not is_number(value):
                        raise TypeError(f'{name}={value!r}')
            check_unchanged(content, _KEYS)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(self._file) from error
        known = [name for name in self._settings if name in settings]
        others = [k for k in known if settings[k] != self._settings[k]]
        is_finished = content.get('finished', False)
        if is_finished and others == ['checkpoint']:
            return False
        if others:
            raise UsageError(
                f'{str(self.folder)!r} holds results of another '
                f'{" and ".join(others)}: give the same to '
                f'{"add subnets" if is_finished else "continue"}, remove that '
                'folder to start over, or write elsewhere'
            )
        unknown = [name for name in self._settings if name not in settings]
        if unknown:
            raise UsageError(
                f'{str(self.folder)!r} is of an earlier release, which does '
                f'not say of what {unknown[0]} it is: remove that folder to '
                'start over, or write elsewhere'
            )
        self.results = results
        return True

    def add(self, subnet: str, metrics: Metrics) -> None:
        """Keep the metrics of a finished subnet."""
        self.results[subnet] = metrics
        self._save()

    def finish(self) -> None:
        """Record that the table is written: another one may replace it."""
        self._save(finished=True)

    def discard(self) -> None:
        """Remove the results, which are written elsewhere."""
        self._file.unlink(missing_ok=True)

    def absorb(self, others: Sequence['Progress']) -> None:
        """Keep what is finished elsewhere, of the same settings, as well."""
        own = self.statistics
        bank, before = dict(own), self.results.keys()
        for other in others:
            for subnet, statistics in other.statistics.items():
                bank.setdefault(subnet, statistics)
            new = other.results.keys() - self.results.keys()
            if not new:
                continue
            for subnet, answers in other.answers.items():
                if subnet in new:
                    self.keep_answers(subnet, answers)
            for subnet, values in other.resampled.items():
                if subnet in new:
                    self.keep_resampled(subnet, values)
            self.results = {**other.results, **self.results}
        if bank.keys() != own.keys():
            self.keep_statistics(bank)
        if self.results.keys() != before:
            self._save()  # last: now these files are looked for

    def _save(self, finished: bool = False) -> None:
        content = dict(
            settings=self._settings, results=self.results, finished=finished
        )
        with atomic_write(self._file) as file:
            file.write(checked_json(content))

    @property
    def statistics(self) -> Dict[str, Statistics]:
        """Calibrated statistics by ``str(subnet)``, on the CPU."""
        if not self._statistics.exists():
            return {}
        try:
            content = load_tensors(self._statistics)
            # Files of earlier releases have the statistics alone.
            if content.keys() == {'settings', 'statistics'}:
                if content['settings'] != self._settings:
                    raise ValueError('of another network')
                content = content['statistics']
            for statistics in content.values():
                for mean, variance in statistics.values():
                    if not _fit(mean, variance):
                        raise ValueError('no mean and variance')
        except Exception as error:  # what it raises depends on the damage
            raise self._damaged(self._statistics) from error
        return content

    def keep_statistics(self, bank: Dict[str, Statistics]) -> None:
        """Keep statistics, tensors on the CPU."""
        with atomic_write(self._statistics) as file:
            save_tensors(dict(settings=self._settings, statistics=bank), file)

    @property
    def answers(self) -> Dict[str, Answers]:
        """Answers of the finished subnets that have any, by their names.

        They are worth less than the results: files that are damaged, or of
        something else, count as missing.
        """
        found = {}
        for subnet in self.results:
            try:
                content = load_tensors(self._answers / f'{subnet}.pth')
                own = dict(settings=self._settings, subnet=subnet)
                # Files of earlier releases do not say what they are of.
                if content.keys().isdisjoint(own):
                    own = {}
                told = {name: content.pop(name) for name in own}
                if told == own:
                    found[subnet] = Answers(**content)
            except Exception:  # what it raises depends on the damage
                continue
        return found

    def keep_answers(self, subnet: str, answers: Answers) -> None:
        """Keep the answers of a subnet, before it is finished."""
        self._answers.mkdir(exist_ok=True)
        with atomic_write(self._answers / f'{subnet}.pth') as file:
            content = dict(vars(answers), settings=self._settings)
            save_tensors(dict(content, subnet=subnet), file)

    @property
    def resampled(self) -> Dict[str, Dict[str, Values]]:
        """Metrics on drawn test sets, of the finished subnets that have any.

        As for :attr:`answers`, damaged files count as missing.
        """
        found = {}
        for subnet in self.results:
            try:
                text = (self._resampled / f'{subnet}.json').read_text()
                found[subnet] = {
                    name: values_from_text(values)
                    for name, values in json.loads(text).items()
                }
            except (OSError, ValueError, TypeError, AttributeError):
                continue
        return found

    def keep_resampled(
        self, subnet: str, values: Mapping[str, Values]
    ) -> None:
        """Keep the metrics of a subnet on drawn test sets, as its answers."""
        self._resampled.mkdir(exist_ok=True)
        texts = {name: values_to_text(v) for name, v in values.items()}
        with atomic_write(self._resampled / f'{subnet}.json') as file:
            file.write(json.dumps(texts).encode())

    def _damaged(self, file: Path) -> UsageError:
        return UsageError(
            f'{str(file)!r} is damaged: remove {str(self.folder)!r} to start '
            'over'
        )


def _fit(mean: Any, variance: Any) -> bool:
    return (
        isinstance(mean, Tensor)
        and isinstance(variance, Tensor)
        and mean.dim() == 1
        and mean.shape == variance.shape
        and bool(mean.isfinite().all() and variance.isfinite().all())
        and bool((variance >= 0).all())
    )
