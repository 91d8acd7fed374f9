# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What finished runs of the claim found, as one file of plain numbers."""

import csv
import io
from pathlib import Path
from typing import Dict, Mapping

from mutualnet_mm import Subnet
from mutualnet_mm.files import atomic_write

Accuracies = Dict[str, Dict[Subnet, float]]
"""By the kind of statistics, then by subnet."""
_HEAD = ['run', 'statistics', 'subnet', 'top1']


def read_records(file: Path) -> Dict[str, Accuracies]:
    """Accuracies of each run, by its name."""
    found: Dict[str, Accuracies] = {}
    with open(file, newline='') as lines:
        for row in csv.DictReader(lines):
            run = found.setdefault(row['run'], {})
            values = run.setdefault(row['statistics'], {})
            values[Subnet.parse(row['subnet'])] = float(row['top1'])
    return found


def write_records(file: Path, results: Mapping[str, Accuracies]) -> None:
    """Write runs and their accuracies, as :func:`read_records` reads them."""
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(_HEAD)
    for run, accuracies in results.items():
        for kind, values in accuracies.items():
            for subnet, top1 in values.items():
                writer.writerow([run, kind, subnet, f'{top1:.2f}'])
    with atomic_write(file) as draft:
        draft.write(text.getvalue().encode())
