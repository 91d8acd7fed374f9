# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Files of the published code: MutualNet's own, and US-Net's."""

import re
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Tuple

import torch
from torch import Tensor

from ..errors import UsageError, first_line
from ..tensor_files import check_intact

_PUBLISHED = re.compile(
    r'(module\.)*(features\.\d+\.(body|shortcut)|block\d\.layer)\.\d+\.'
)


def is_published(content: Any) -> bool:
    """Whether weights, or what a file holds, bear the published names."""
    return next(_sets_of_weights(content), None) is not None


def _sets_of_weights(
    content: Any, place: str = ''
) -> Iterator[Tuple[str, Mapping[Any, Any]]]:
    """Dictionaries with published names, wherever they lie, and where."""
    if not isinstance(content, Mapping):
        return
    if any(_PUBLISHED.match(str(key)) for key in content):
        yield place or 'itself', content
        return
    for key, value in content.items():
        yield from _sets_of_weights(value, f'{place}.{key}'.lstrip('.'))


def read_published(path: str) -> Dict[str, Tensor]:
    """Read the weights of a file of the published code.

    Args:
        path (str): As its training script saves it, ``dict(model=...)``, or a
            bare ``state_dict``.

    Returns:
        dict: Tensors by the published names, without ``module.``, in single
        precision.

    Raises:
        UsageError: If the file cannot be read without running code that it
            holds, if it is of something else, or if it holds several sets of
            weights, as those of a network and their average.
    """
    if not Path(path).is_file():
        raise UsageError(f'checkpoint {path!r} does not exist')
    try:
        check_intact(path)
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # each kind of damage has its own
        raise UsageError(_unread(path, error)) from error
    found = dict(_sets_of_weights(content))
    if len(found) > 1:
        raise UsageError(
            f'{path!r} holds {len(found)} sets of published weights, '
            f'{" and ".join(found)}: save the one to convert in a file of its '
            'own'
        )
    if not found:
        raise UsageError(
            f'{path!r} is not of the published code: it holds '
            f'{_first_name(content)}, where that has names such as '
            'features.1.body.0.weight'
        )
    (weights,) = found.values()
    plain: Dict[str, Tensor] = {}
    for key, value in weights.items():
        name = re.sub(r'^(module\.)+', '', str(key))
        if name in plain:
            raise UsageError(
                f'{path!r} holds {name} twice, with and without module.: save '
                'the weights to convert in a file of their own'
            )
        plain[name] = _in_single_precision(path, name, value)
    private = next(
        (k for k in plain if re.search(r'\.bn\.\d+\.weight$', k)), None
    )
    if private is not None:
        raise UsageError(
            f'{path!r} is of a slimmable network whose widths each have batch '
            f'norms of their own ({private}), which no network here has: only '
            'MutualNet and US-Net, which share them, can be converted'
        )
    return plain


def _first_name(content: Any) -> str:
    """What a file holds first: a tensor, if it has any."""
    found = [*_leaves(content)]
    tensors = [name for name, value in found if isinstance(value, Tensor)]
    return next(iter([*tensors, *(name for name, _ in found)]), 'no weights')


def _leaves(content: Any) -> Iterator[Tuple[str, Any]]:
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield str(key), value


def _in_single_precision(path: str, name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            return value.float()
        if name.endswith('num_batches_tracked'):
            return value
    kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
    raise UsageError(
        f'{path!r} is damaged: {name} is of {kind}, and weights are tensors '
        'of floating-point numbers'
    )


def _unread(path: str, error: Exception) -> str:
    names = _parts(path)
    if names and not any(name.endswith('data.pkl') for name in names):
        return f'{path!r} is an archive of {", ".join(names)}: unpack it'
    return (
        f'checkpoint {path!r} cannot be read as tensors alone: '
        f'{first_line(error)}; of a file that holds more, save what lies '
        "under 'model' where the published code is at hand"
    )


def _parts(path: str) -> List[str]:
    """Names in an archive; empty of anything else, or if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return []
