# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A config that draws what is predicted."""

from inspect import signature
from pathlib import Path
from typing import Any, Optional

from mmengine.config import Config
from mmengine.registry import HOOKS

from ..errors import ConfigError
from .stock_errors import named_stock_errors


def draw_predictions(
    cfg: Config,
    folder: Optional[str] = None,
    show: bool = False,
    interval: Optional[int] = None,
    wait_time: float = 2.0,
) -> None:
    """Switch the config's ``visualization`` hook on for a test.

    What ``--show-dir``, ``--show``, ``--interval`` and ``--wait-time`` do.

    Args:
        cfg (Config): Changed in place.
        folder (str, optional): Where pictures go; mmdet's tool takes it for
            one inside of the work dir. Defaults to where the visualizer's
            backends put them.
        show (bool): Whether pictures are shown in windows. Defaults to False.
        interval (int, optional): Draw every so many samples. Defaults to all.
        wait_time (float): Seconds that a window stays. Defaults to 2.

    Raises:
        ConfigError: If the config has no hook that draws, or one that cannot.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        name = f'{"Det" if scope == "mmdet" else ""}VisualizationHook'
        raise ConfigError(
            'the config has no hook that draws: set default_hooks.'
            f"visualization=dict(type='{name}'), or leave out --show-dir and "
            '--show'
        )
    kind = _find_hook(hook.type, scope)
    if kind.__module__.startswith('mmaction.'):
        # Its visualizer takes no `show`, and clips of one view alone.
        raise ConfigError(
            f"mmaction2's {kind.__name__} cannot draw what its recognizers "
            'predict: leave out --show-dir and --show, and keep the '
            'predictions by --dump'
        )
    path = None if folder is None else str(Path(folder).absolute())
    shown = dict(show=show, wait_time=wait_time)
    if 'draw' not in signature(kind).parameters:
        hook.update(shown, enable=True, out_dir=path, interval=interval or 1)
        return
    if interval is not None:
        raise ConfigError(
            f'--interval {interval}: {kind.__name__} draws every image of a '
            'test, leave it out'
        )
    hook.update(shown if show else {}, draw=True)
    if path is not None:
        hook.test_out_dir = path


def _find_hook(written: Any, scope: str) -> type:
    """The class of a hook, as a config of ``scope`` names it."""
    if isinstance(written, type):
        return written
    with named_stock_errors(), HOOKS.switch_scope_and_registry(scope) as hooks:
        found = hooks.get(written)
        if found is None:
            raise KeyError(f'{written} is not in the hook registry')
    return found
