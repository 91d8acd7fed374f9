# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A config as source that can be read again."""

import math
from dataclasses import dataclass
from typing import Any, Iterator, Optional, Tuple

from mmengine.config import Config

from ..errors import ConfigError


def config_source(cfg: Config) -> str:
    """Write a config as Python source, for ``Config.fromstring(_, '.py')``.

    It is read back, and compared, before it is returned. Infinite numbers,
    which mmengine writes as a bare ``inf``, are written so that Python knows
    them.

    Args:
        cfg (Config): It is not changed.

    Raises:
        ConfigError: If the source says something else than the config; names
            the setting.
    """
    settings = _spelled(cfg.to_dict())
    text = _written(settings)
    if text is None:
        place, value = next(_unreadable('', settings), ('', cfg.filename))
        raise ConfigError(
            f'{place or "the config"}, {value!r}, cannot be kept in a file: '
            'use numbers, text, lists and dicts'
        )
    return text


@dataclass(frozen=True)
class _NotFinite:
    """Stands for a number that has no literal, and is printed as a call."""

    name: str

    def __str__(self) -> str:
        return f"float('{self.name}')"


def _spelled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spelled(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_spelled, value))
    if isinstance(value, float) and not math.isfinite(value):
        return _NotFinite(str(float(value)))
    return value


def _written(settings: dict) -> Optional[str]:
    """Source of settings, or None if they do not come back from it."""
    try:
        text = Config(settings).pretty_text
        again = Config.fromstring(text, '.py').to_dict()
    except Exception:  # the source is a program
        return None
    return text if _spelled(again) == settings else None


def _unreadable(place: str, value: Any) -> Iterator[Tuple[str, Any]]:
    """Yield the values that make settings unreadable, with their places."""
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, (list, tuple)):
        children = list(enumerate(value))
    else:
        if _written(dict(value=value)) is None:
            yield place, value
        return
    for key, item in children:
        yield from _unreadable(f'{place}.{key}'.lstrip('.'), item)
