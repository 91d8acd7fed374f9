# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Configs of existing projects: where they lie, and what they inherit."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Optional, Tuple, Union

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from ..errors import ConfigError, as_usage_error

_NAME = re.compile(r'(\w+)::(.+)')


@dataclass(frozen=True)
class StockConfig:
    """A config that another one can be derived from.

    Args:
        cfg (Config): What it says.
        path (Path, optional): Its file; None for one that was made in memory.
        name (str, optional): How other configs inherit it wherever they are,
            ``'mmdet::folder/file.py'``; None for a file of one's own.
    """

    cfg: Config
    path: Optional[Path] = None
    name: Optional[str] = None

    @property
    def stem(self) -> str:
        """str: Name of the file, without suffix."""
        return 'config' if self.path is None else self.path.stem

    @property
    def is_new_style(self) -> bool:
        """Whether it inherits by ``read_base``, or names types by classes.

        MMEngine lets a config inherit from those of its own style only.
        """
        # Of these names one is `read_base` itself, or a class.
        return bool(getattr(self.cfg, '_imported_names', None))


def read_stock_config(config: Union[str, Path, Config]) -> StockConfig:
    """Find and read a config.

    Args:
        config (str, Path or Config): File, name such as
            ``'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'`` (the suffix may be
            left out), or a config in memory.

    Raises:
        ConfigError: If there is none, or if it cannot be read or has no
            model; names it.
    """
    path, name = None, None
    if isinstance(config, Config):
        cfg = config
    else:
        path, name = find_config(config)
        with as_usage_error(
            f'config {str(config)!r} cannot be read', ConfigError
        ):
            cfg = Config.fromfile(path)
    model = cfg.get('model')
    if not isinstance(model, dict) or model.get('type') is None:
        raise ConfigError(
            f'config {str(path or "in memory")!r} has no model with a type: '
            'give one that can be trained'
        )
    return StockConfig(cfg, path, name)


def find_config(config: Union[str, Path]) -> Tuple[Path, Optional[str]]:
    """Find the file of a config.

    Args:
        config (str or Path): File, or name such as
            ``'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'`` (the suffix may be
            left out).

    Returns:
        tuple: The file; its name with the suffix, None for one that was not
        named so.

    Raises:
        ConfigError: If there is none; names a near one.
    """
    found = _NAME.fullmatch(str(config))
    if found is None:
        path, name, hint = Path(config), None, ''
    else:
        rest = found[2] if found[2].endswith('.py') else f'{found[2]}.py'
        folder = config_folder(found[1])
        path, name = folder / rest, f'{found[1]}::{rest}'
        hint = '' if path.is_file() else _near(folder, rest)
    if not path.is_file():
        raise ConfigError(f'config {str(config)!r} does not exist{hint}')
    return path, name


def _near(folder: Path, name: str) -> str:
    names = [p.relative_to(folder).as_posix() for p in folder.rglob('*.py')]
    near = get_close_matches(name, names, 1)
    meant = f': did you mean {near[0]}?' if near else ''
    return f' in {str(folder)!r}{meant}'


def derived_name(stock: StockConfig) -> str:
    """Name the file of a config that is derived from another one.

    Configs that inherit by ``read_base`` have names that Python can import.
    """
    return f'mutual{"_" if stock.is_new_style else "-"}{stock.stem}.py'


def config_folder(package: str) -> Path:
    """Where the configs of an installed project lie.

    Args:
        package (str): Name that is imported, such as ``'mmaction'``.

    Raises:
        ConfigError: If it is no project of OpenMMLab, is not installed, or
            was installed without its configs.
    """
    if package not in MODULE2PACKAGE:
        raise ConfigError(
            f'{package}:: is no project whose configs can be inherited: use '
            'mmdet::, mmpretrain::, mmaction:: or mutualnet_mm::'
        )
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f'{package} is not installed: install {MODULE2PACKAGE[package]}, '
            'or give the file of the config'
        )
    folder = Path(spec.submodule_search_locations[0]) / '.mim' / 'configs'
    if not folder.is_dir():
        raise ConfigError(
            f'{package} was installed without its configs (no folder '
            f'{str(folder)!r}): give the file of the config'
        )
    return folder
