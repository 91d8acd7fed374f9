# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""JSON files that prove that their values are those that were written."""

import hashlib
import json
from pathlib import Path
from typing import Any, Collection, Dict, List, Tuple, Union

CHECKSUM = 'sha256'
"""Last key of a file: the SHA-256 of all others."""

_MOST_BYTES = 2**28


def checked_json(content: Dict[str, Any]) -> bytes:
    """Write JSON with a checksum of its values.

    Args:
        content (dict): Plain values with text as keys; floats are finite.
    """
    content = dict(content, **{CHECKSUM: json_sha256(content)})
    return f'{json.dumps(content, indent=2, allow_nan=False)}\n'.encode()


def read_json(path: Union[str, Path]) -> Any:
    """Read JSON in which each value has one meaning.

    Args:
        path (str or Path): File of at most 256 MiB.

    Raises:
        OSError: If it cannot be read.
        ValueError: Where it is damaged; also if it repeats a key.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f'{size} bytes, more than {_MOST_BYTES}')
    try:
        return json.loads(
            path.read_text(encoding='utf-8'),
            object_pairs_hook=_unique,
        )
    except RecursionError as error:
        raise ValueError('brackets in brackets without end') from error


def check_unchanged(content: Dict[str, Any], keys: Collection[str]) -> None:
    """Compare what was read with its checksum.

    Args:
        content (dict): As :func:`read_json` returns it.
        keys (Collection[str]): Of files without a checksum, which earlier
            releases wrote. Any other one would be that of a damaged checksum.

    Raises:
        ValueError: If something has changed.
    """
    told = content.get(CHECKSUM)
    rest = {key: v for key, v in content.items() if key != CHECKSUM}
    if CHECKSUM in content:
        if told != json_sha256(rest):
            raise ValueError(
                'it was changed after it was written, its values and its '
                f'{CHECKSUM} do not agree (to take it as it is, remove that)'
            )
        return
    unknown = [key for key in rest if key not in keys]
    if unknown:
        raise ValueError(f'{unknown[0]!r} is unknown, and no {CHECKSUM}')


def json_sha256(content: Any) -> str:
    """SHA-256 of plain values, whatever the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'key {twice!r} comes twice')
    return found
