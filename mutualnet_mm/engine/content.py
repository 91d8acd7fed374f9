# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a test set holds, to tell whether it is the same."""

import hashlib
import json
import os
import re
from typing import Any, Dict, Iterator

import numpy as np
from torch import Tensor

_FILES = ('path', 'filename')


def content_fingerprint(dataset: Any) -> str:
    """SHA-256 of what a data set says of its samples, and of their files.

    Of files the sizes count, as far as they are on a disk: images that were
    made anew under the same names mostly have others. Of a folder of frames
    the clip's first one counts.

    Args:
        dataset (Dataset): Built, one of MMEngine's or a wrapper. Of others
            nothing is known but their number.
    """
    digest = hashlib.sha256(str(len(dataset)).encode())
    says_all = hasattr(dataset, 'get_data_info')
    for i in range(len(dataset) if says_all else 0):
        info = dataset.get_data_info(i)
        digest.update(json.dumps(_named(info), default=_plain).encode())
        for file in _files(info) if isinstance(info, dict) else ():
            digest.update(f'{_size(file)}'.encode())
    return digest.hexdigest()


def _files(info: Dict[Any, Any]) -> Iterator[str]:
    """Yield the files of a sample; of a folder of frames the first one."""
    for name, value in info.items():
        if str(name).endswith(_FILES) and isinstance(value, str):
            yield value
    try:
        first = info['start_index'] + (info.get('offset') or 0)
        yield os.path.join(
            info['frame_dir'], info['filename_tmpl'].format(first)
        )
    except (LookupError, AttributeError, TypeError, ValueError):
        return  # no folder of frames, or one of optical flow


def _named(value: Any) -> Any:
    """The same with keys that are text."""
    if isinstance(value, dict):
        return {str(key): _named(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(_named, value))
    return value


def _plain(value: Any) -> Any:
    """A hash of an array; of other objects text that is always the same."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(value)
        if array.dtype == object:
            return array.tolist()
        # Poses of a video are too many numbers to be written out.
        return f'{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}'
    if isinstance(value, (set, frozenset)):  # in another order each time
        return sorted(map(repr, value))
    return re.sub(r' at 0x[0-9a-fA-F]+', '', repr(value))


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except (OSError, ValueError):  # an address, say, or in an archive
        return 0
