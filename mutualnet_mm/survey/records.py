# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Outcomes of a survey in a file, one a line: it goes on where it stopped."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Dict

from ..errors import UsageError
from .processes import Outcome


def read_outcomes(path: Path) -> Dict[str, Outcome]:
    """Read the outcomes so far, by the config's name.

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
            outcome = Outcome(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise UsageError(
                f'line {number} of {str(path)!r} is no outcome of a survey: '
                'delete the file to begin anew'
            ) from error
        found[outcome.config] = outcome
    return found


def add_outcome(path: Path, outcome: Outcome) -> None:
    """Write an outcome behind the others.

    It takes the place of a last line that was not finished.
    """
    with path.open('ab+') as file:
        file.seek(0)
        file.truncate(file.read().rfind(b'\n') + 1)
        file.write(f'{json.dumps(asdict(outcome))}\n'.encode())
