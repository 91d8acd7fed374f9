#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Convert an annotation file of Charades into mmaction2's list of videos.

Each line of the list is a video and the numbers of its actions (0 to 156),
each once: what a VideoDataset with multi_class=True and num_classes=157 reads.
Videos without an action are left out: there is nothing that they are tested
on, and the official evaluation passes over them, too.
"""

import argparse
import csv
import re
from pathlib import Path
from typing import List, Tuple

from mutualnet_mm import UsageError
from mutualnet_mm.cli import one_line_errors
from mutualnet_mm.files import atomic_write

NUM_CLASSES = 157
COLUMNS = ('id', 'actions')
# A class and its first and last second: 'c092 11.90 21.20'.
ACTION = re.compile(r'c(\d{3}) -?[\d.]+ -?[\d.]+')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'csv', type=Path, help='Charades_v1_train.csv or Charades_v1_test.csv'
    )
    parser.add_argument('out', type=Path, help='list to write')
    return parser.parse_args()


def read_actions(path: Path) -> List[Tuple[str, List[int]]]:
    """Read the videos of a file and the actions of each, in ascending order.

    Args:
        path (Path): As the Charades project publishes it.

    Raises:
        UsageError: Names the line and the value that is wrong.
    """
    try:
        with open(path, encoding='utf-8', newline='') as file:
            reader = csv.DictReader(file)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                names = ' and '.join(sorted(missing))
                raise UsageError(
                    f'{str(path)!r} has no column {names}: give a CSV file of '
                    'Charades'
                )
            return [
                _video(row, f'{path}, line {reader.line_num}')
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f'{str(path)!r} cannot be read as CSV: {error}'
        ) from error


def _video(row: dict, place: str) -> Tuple[str, List[int]]:
    if None in row or None in row.values():
        raise UsageError(
            f'{place}: {row["id"]!r} has fewer or more fields than there are '
            'columns: is the file complete?'
        )
    if not re.fullmatch(r'\w+', row['id']):
        raise UsageError(f'{place}: {row["id"]!r} is no id of a video')
    found = set()
    for action in filter(None, row['actions'].split(';')):
        match = ACTION.fullmatch(action.strip())
        number = int(match[1]) if match else NUM_CLASSES
        if number >= NUM_CLASSES:
            raise UsageError(
                f'{place}: {action!r} is no action, which reads as '
                "'c092 11.90 21.20' with a class of c000 to c156"
            )
        found.add(number)
    return row['id'], sorted(found)


def main() -> None:
    args = parse_args()
    with one_line_errors():
        videos = read_actions(args.csv)
        lines = [
            ' '.join([f'{name}.mp4', *map(str, classes)])
            for name, classes in videos
            if classes
        ]
        if not lines:
            raise UsageError(f'{str(args.csv)!r} has no video with an action')
        with atomic_write(args.out) as file:
            file.write(''.join(f'{line}\n' for line in lines).encode())
    print(
        f'{args.out}: {len(lines)} videos, '
        f'{len(videos) - len(lines)} without an action left out'
    )


if __name__ == '__main__':
    main()
