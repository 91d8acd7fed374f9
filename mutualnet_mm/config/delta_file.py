# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Changes of a stock config, written as a config that inherits it."""

import os
import re
import textwrap
from pathlib import Path
from typing import Any, Dict, List, Sequence, Set, Tuple, Union

from mmengine.config import Config

from ..errors import ConfigError, as_usage_error
from ..files import atomic_write
from .changes import Change
from .stock import StockConfig

# Names of configs that MMEngine finds; to others a path leads.
_NAME = re.compile(r'\w+::\w+/\w')
_COLUMNS = 79
_INDENT = ' ' * 4
_OURS = 'mutualnet_mm.'
# Where new-style configs import our types from.
_MODULES = dict(
    MutualLearning='models',
    Slimmable='models',
    SubnetValLoop='engine',
    SubnetTestLoop='engine',
    BNCalibrationHook='engine',
)
_HEAD = """\
\"\"\"One network of many widths and resolutions, derived from a stock config.

Written by mutualnet_mm; edit it as you like.
\"\"\"
"""
Node = Dict[str, Any]


def write_delta(
    stock: StockConfig,
    changes: Sequence[Change],
    expected: Config,
    out: Union[str, Path],
) -> None:
    """Write a config that inherits ``stock``, and prove that it is read so.

    Args:
        stock (StockConfig): Read from a file.
        changes (Sequence[Change]): As :func:`~.adaptive.derive` lists them.
        expected (Config): As :func:`~.changes.apply_changes` makes it.
        out (str or Path): File of Python. One that says the same stays.

    Raises:
        ConfigError: If ``out`` is no file of Python or says something else,
            or if a config there cannot inherit the stock one.
    """
    out = Path(out)
    if out.suffix != '.py':
        raise ConfigError(
            f'config {str(out)!r} would not be read: name it '
            f'{out.with_suffix(".py").name!r}'
        )
    source = delta_source(stock, changes, out)
    if out.is_file() and out.read_text(encoding='utf-8') != source:
        raise ConfigError(
            f'config {str(out)!r} is there and says something else: delete '
            'it, or write elsewhere'
        )
    with atomic_write(out, suffix='.py') as draft:
        draft.write(source.encode())
        draft.flush()
        with as_usage_error(
            f'{str(stock.path)!r} cannot be inherited by {str(out)!r}',
            ConfigError,
        ):
            found = Config.fromfile(draft.name)
        odd = _differing(found, expected)
        if odd:
            raise ConfigError(
                f'{str(out)!r} would inherit another {odd[0]} than '
                f'{str(stock.path)!r} has: set it in the stock config '
                'itself, without variables'
            )


def _differing(found: Config, expected: Config) -> List[str]:
    """Settings of which two configs say different things."""
    first, second = _plain(dict(found)), _plain(dict(expected))
    keys = {*first, *second} - {'custom_imports'}
    for cfg in (found, expected):  # new-style ones keep what they import
        keys -= {*getattr(cfg, '_imported_names', ())}
    return sorted(key for key in keys if first.get(key) != second.get(key))


def _plain(value: Any) -> Any:
    """Settings without their style, and without the scope they come from."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, (list, tuple)):
        return [*map(_plain, value)]
    if hasattr(value, '__qualname__'):  # a class or function
        value = f'{value.__module__}.{value.__qualname__}'
    if isinstance(value, str) and value.startswith(_OURS):
        return f'{_OURS}{value.rpartition(".")[2]}'
    return repr(value)


def delta_source(
    stock: StockConfig, changes: Sequence[Change], out: Union[str, Path]
) -> str:
    """Write a config that inherits ``stock`` and makes the changes.

    Args:
        stock (StockConfig): Read from a file.
        changes (Sequence[Change]): As :func:`~.adaptive.derive` lists them.
        out (str or Path): Where it is going to lie.

    Returns:
        str: Source in the style of the stock config, with a comment on each
        change.

    Raises:
        ConfigError: If a config there cannot inherit it.
    """
    if stock.path is None:
        raise ConfigError(
            'a config in memory cannot be inherited by a file: give its name '
            'or path'
        )
    write = _new_style if stock.is_new_style else _old_style
    return '\n'.join([_HEAD, *write(stock, changes, Path(out))]) + '\n'


def _old_style(
    stock: StockConfig, changes: Sequence[Change], out: Path
) -> List[str]:
    base = stock.name or ''
    if not _NAME.match(base):
        base = _relative(stock, out).as_posix()
    lines = [f'_base_ = [{base!r}]']
    for key, node in _tree(changes).items():
        if isinstance(node, Change) and node.appends:
            inherited = [f'*_base_.{key}'] if stock.cfg.get(key) else []
            lines += _appended(key, node, inherited)
        else:
            lines += _statement(key, node)
    return lines


def _new_style(
    stock: StockConfig, changes: Sequence[Change], out: Path
) -> List[str]:
    base = _relative(stock, out).with_suffix('').parts
    ups = sum(part == '..' for part in base)
    names = base[ups:]
    odd = next((name for name in names if not name.isidentifier()), None)
    if odd is not None:
        is_folder = odd != names[-1]
        raise ConfigError(
            f'config {str(stock.path)!r} inherits by read_base, which needs '
            f'names that Python can import, but {odd!r} is none: rename it'
            + ', or write the new config beside it by --out'
            * is_folder
        )
    # Of an old-style config, names in text; here, what they stand for.
    changes = [c for c in changes if c.key != 'custom_imports']
    imports: Set[Tuple[str, str]] = set()
    body: List[str] = []
    for key, node in _tree(changes).items():
        node = _classes(node, imports)
        if isinstance(node, Change) and node.appends:
            inherited = [f'*{key}'] if stock.cfg.get(key) else []
            body += _appended(key, node, inherited)
        elif isinstance(node, dict) and stock.cfg.get(key) is not None:
            body += [f'{key}.update(', *_lines('', node, '', 1), ')']
        else:
            body += _statement(key, node)
    modules: Dict[str, List[str]] = {}
    for module, name in sorted(imports):
        modules.setdefault(module, []).append(name)
    lines = ['from mmengine.config import read_base']
    for module, found in modules.items():
        line = f'from {module} import {", ".join(found)}'
        if len(line) > _COLUMNS:
            line = '\n'.join(
                [f'from {module} import (']
                + [f'{_INDENT}{name},' for name in found]
                + [')']
            )
        lines.append(line)
    path = '.' * (ups + 1) + '.'.join(names)
    return [
        *lines,
        '',
        'with read_base():',
        f'{_INDENT}from {path} import *',
        '',
        *body,
    ]


def _relative(stock: StockConfig, out: Path) -> Path:
    assert stock.path is not None
    return Path(os.path.relpath(stock.path.resolve(), out.resolve().parent))


def _tree(changes: Sequence[Change]) -> Node:
    """Nest the changes as the config nests its settings."""
    tree: Node = {}
    for change in changes:
        *parents, name = change.key.split('.')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = change
    return tree


def _classes(node: Any, imports: Set[Tuple[str, str]]) -> Any:
    """Replace what names a class by the class's name, and import it."""
    if isinstance(node, Change):
        value = _class_names(node.value, imports)
        return Change(node.key, value, node.why, node.appends)
    return {key: _classes(item, imports) for key, item in node.items()}


class _Name(str):
    """Written without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _class_names(value: Any, imports: Set[Tuple[str, str]]) -> Any:
    if isinstance(value, dict):
        return {k: _class_names(v, imports) for k, v in value.items()}
    if isinstance(value, str) and value.startswith(_OURS):
        name = value[len(_OURS) :]
        imports.add((f'{_OURS}{_MODULES[name]}', name))
        return _Name(name)
    if isinstance(value, type):
        imports.add((value.__module__, value.__name__))
        return _Name(value.__name__)
    return value


def _statement(key: str, node: Any) -> List[str]:
    """``key = value``, with the comments of what is inside."""
    return _lines(f'{key} = ', node, '', 0)


def _lines(start: str, node: Any, end: str, depth: int) -> List[str]:
    """Write a value between ``start`` and ``end``, indented."""
    if isinstance(node, Change):
        code = f'{start}{_source(node.value)}{end}'
        return _commented(code, node.why, depth)
    if len(node) == 1:  # on the same line
        ((name, item),) = node.items()
        if isinstance(item, Change):
            return _lines(f'{start}dict({name}=', item, f'){end}', depth)
    indent = _INDENT * depth
    lines = [f'{indent}{start}dict(']
    for name, item in node.items():
        lines += _lines(f'{name}=', item, ',', depth + 1)
    return [*lines, f'{indent}){end}']


def _appended(key: str, change: Change, inherited: List[str]) -> List[str]:
    """``key = [*stock, value]``."""
    lines = [f'{_INDENT}{item},  # the stock ones' for item in inherited]
    lines += _commented(f'{_source(change.value)},', change.why, 1)
    return [f'{key} = [', *lines, ']']


def _commented(code: str, why: str, depth: int) -> List[str]:
    """A line with its comment behind, or above where that is too long."""
    indent = _INDENT * depth
    line = f'{indent}{code}  # {why}'
    if len(line) <= _COLUMNS:
        return [line]
    above = textwrap.wrap(why, _COLUMNS - len(indent) - 2)
    return [*(f'{indent}# {part}' for part in above), f'{indent}{code}']


def _source(value: Any) -> str:
    """Python source of a setting."""
    if isinstance(value, dict):
        items = ', '.join(f'{k}={_source(v)}' for k, v in value.items())
        return f'dict({items})'
    if isinstance(value, (list, tuple)):
        items = ', '.join(map(_source, value))
        if isinstance(value, list):
            return f'[{items}]'
        return f'({items},)' if len(value) == 1 else f'({items})'
    return repr(value)
