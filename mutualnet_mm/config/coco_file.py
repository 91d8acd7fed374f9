# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A COCO annotation file that a config names, read and whole."""

import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from mmengine.logging import print_log

from ..errors import ConfigError, is_number

_LARGEST = 200 * 2**20  # bytes: larger files take minutes to be read twice
_NEEDED = dict(
    images=('id', 'file_name', 'height', 'width'),
    annotations=('id', 'image_id', 'category_id', 'bbox', 'area'),
    categories=('id', 'name'),
)


class CocoFile(NamedTuple):
    """A file that was read, and where the config names it.

    Args:
        place (str): Such as ``'train_dataloader.dataset.ann_file'``.
        path (str): Of the file.
        content (dict): Its images, annotations and categories.
        classes (Sequence[str], optional): Of the data set that reads it; None
            if they are not known, or of a metric.
    """

    place: str
    path: str
    content: Dict[str, List[dict]]
    classes: Optional[Sequence[str]]

    def refuse(self, what: str, remedy: str) -> ConfigError:
        """Return an error that names the file, what is wrong, and a remedy."""
        return ConfigError(
            f'{self.place}, annotation file {self.path!r}: {what}; {remedy}'
        )

    def warn(self, what: str) -> None:
        """Say what is legal but costs."""
        print_log(
            f'{self.place}, annotation file {self.path!r}: {what}',
            logger='current',
            level=logging.WARNING,
        )

    @property
    def labels(self) -> List[Any]:
        """Ids of the categories, in the order in which stock labels count."""
        classes = set(self.classes or ())
        return [
            c['id'] for c in self.content['categories'] if c['name'] in classes
        ]


def opened(
    place: str, settings: dict, root: str, read: Dict[str, Any]
) -> Optional[CocoFile]:
    """Read a file once; None if it is elsewhere or too large.

    Args:
        place (str): Of the data set or metric in the config.
        settings (dict): Its own.
        root (str): Folder that the name of the file begins at.
        read (dict): Contents by path, which grows.

    Raises:
        ConfigError: If the file is damaged, or no COCO file.
    """
    written = settings.get('ann_file')
    backend = settings.get('backend_args') or {}
    if not written or '://' in f'{root}{written}':
        return None
    if backend and backend.get('backend') != 'local':
        return None
    path = os.path.join(root, str(written))
    if not Path(path).is_file() or Path(path).stat().st_size > _LARGEST:
        return None
    file = CocoFile(f'{place}.ann_file', path, {}, None)
    if path not in read:
        read[path] = _read(file)
    return file._replace(content=read[path])


def _read(file: CocoFile) -> Dict[str, List[dict]]:
    remedy = "give a file in COCO's format"
    try:
        content = json.loads(Path(file.path).read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        what = f'it is damaged or not JSON ({error})'
        raise file.refuse(what, remedy) from error
    if not isinstance(content, dict):
        raise file.refuse(f'it holds a {type(content).__name__}', remedy)
    parts = {}
    for part, keys in _NEEDED.items():
        rows = content.get(part, [] if part == 'annotations' else None)
        if not isinstance(rows, list):
            raise file.refuse(f'it has no list of {part}', remedy)
        for i, row in enumerate(rows):
            lacking = [
                key
                for key in keys
                if not isinstance(row, dict) or key not in row
            ]
            if lacking:
                raise file.refuse(
                    f'{part}[{i}] has no {lacking[0]!r}', 'add it'
                )
            if not isinstance(row['id'], (int, str)):
                raise file.refuse(
                    f'{part}[{i}] has id={row["id"]!r}', 'give a number'
                )
        _check_unique(file, part, rows)
        parts[part] = rows
    for row in parts['images']:
        if not (is_number(row['height']) and is_number(row['width'])):
            raise file.refuse(
                f'image {row["id"]} has height={row["height"]!r} and '
                f'width={row["width"]!r}',
                'give numbers of pixels',
            )
    for row in parts['annotations']:
        if not _is_box(row['bbox']):
            raise file.refuse(
                f'annotation {row["id"]} has bbox={row["bbox"]!r}',
                'give left, top, width and height, four finite numbers',
            )
        if not is_number(row['area']):
            raise file.refuse(
                f'annotation {row["id"]} has area={row["area"]!r}',
                'give a number of pixels',
            )
    return parts


def _check_unique(file: CocoFile, part: str, rows: List[dict]) -> None:
    """Refuse equal ids: the stock index keeps the last row of each."""
    counts = Counter(row['id'] for row in rows)
    twice = [number for number, count in counts.items() if count > 1]
    if twice:
        raise file.refuse(
            f'{len(twice)} ids of {part} are there more than once, such as '
            f'{twice[0]!r}',
            'give each an id of its own',
        )


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(is_number, box))
