# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Outcomes of a survey in a file, one a line: it goes on where it stopped."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict

from ..errors import UsageError
from .processes import Outcome


@dataclass(frozen=True)
class Record:
    """An outcome, and what it was found with.

    Args:
        outcome (Outcome): What became of a config.
        ours (str): Version of mutualnet_mm.
        stock (str): Version of the project that the config is of.
        timeout (float): Seconds that a process was given.
        date (str): Such as ``'2024-01-31'``.
    """

    outcome: Outcome
    ours: str
    stock: str
    timeout: float
    date: str

    def holds(self, ours: str, stock: str, timeout: float) -> bool:
        """Whether it need not be found anew.

        Other versions may find something else; so does a longer time limit
        where this one was too short.

        Args:
            ours (str): Version of mutualnet_mm now.
            stock (str): Version of the project now.
            timeout (float): Seconds that a process is given now.
        """
        if (self.ours, self.stock) != (ours, stock):
            return False
        return self.outcome.result != 'too slow' or timeout <= self.timeout


def read_records(path: Path) -> Dict[str, Record]:
    """Read the records so far, by the config's name.

    A last line that was not finished is left out; of two for one config the
    later one counts.

    Raises:
        UsageError: If another line is none of ours; names it.
    """
    if not path.is_file():
        return {}
    found = {}
    lines = path.read_text(encoding='utf-8').split('\n')
    for number, line in enumerate(lines[:-1], start=1):
        try:
            fields = json.loads(line)
            record = Record(Outcome(**fields.pop('outcome')), **fields)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UsageError(
                f'line {number} of {str(path)!r} is no outcome of a survey: '
                'delete the file to begin anew'
            ) from error
        found[record.outcome.config] = record
    return found


def add_record(path: Path, record: Record) -> None:
    """Write a record behind the others.

    It takes the place of a last line that was not finished.
    """
    with path.open('ab+') as file:
        file.seek(0)
        file.truncate(file.read().rfind(b'\n') + 1)
        file.write(f'{json.dumps(asdict(record))}\n'.encode())
