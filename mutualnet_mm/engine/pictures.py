# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Pictures of predictions, which say of which subnet they are."""

import copy
from typing import Any, Dict, List, Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..subnet import Subnet


class Pictures:
    """Lets the hooks that draw predictions do so for each subnet.

    Inside of the ``with`` block every drawing hook of the runner names its
    pictures after the first subnet; :meth:`draw` has the others drawn.
    Files lie in a folder for each subnet, ``FOLDER/0.5x-360/...``; names of
    windows and of what visualizer backends keep begin with ``0.5x-360_``.

    Args:
        runner (Runner): Whose hooks draw, or do not.
        subnets (Sequence[Subnet]): All that are evaluated.
    """

    def __init__(self, runner: Runner, subnets: Sequence[Subnet]) -> None:
        self._runner = runner
        self._hooks = [h for h in runner.hooks if hasattr(h, '_visualizer')]
        self._first = subnets[0]
        # A copy for each: hooks count their pictures.
        self._others: Dict[Subnet, List[Hook]] = {
            subnet: [_named(copy.copy(h), subnet) for h in self._hooks]
            for subnet in subnets[1:]
        }

    def __enter__(self) -> 'Pictures':
        self._before = [hook._visualizer for hook in self._hooks]
        for hook in self._hooks:
            _named(hook, self._first)
        return self

    def __exit__(self, *error: Any) -> None:
        for hook, visualizer in zip(self._hooks, self._before):
            hook._visualizer = visualizer

    def draw(self, subnet: Subnet, stage: str, **of_iter: Any) -> None:
        """Draw what a subnet predicts for a batch, but not the first's.

        Args:
            subnet (Subnet): Whose predictions these are.
            stage (str): ``'val'`` or ``'test'``.
            **of_iter: Arguments of a hook's ``after_test_iter``.
        """
        for hook in self._others.get(subnet, ()):
            getattr(hook, f'after_{stage}_iter')(self._runner, **of_iter)


def _named(hook: Any, subnet: Subnet) -> Any:
    hook._visualizer = _NamedVisualizer(hook._visualizer, subnet)
    return hook


class _NamedVisualizer:
    """A visualizer whose pictures are named after a subnet."""

    def __init__(self, visualizer: Any, subnet: Subnet) -> None:
        self._visualizer = visualizer
        self._subnet = str(subnet)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._visualizer, name)
        draws = name == 'add_datasample' or name.startswith('visualize_')
        return self._naming(found) if draws else found

    def _naming(self, draw: Any) -> Any:
        def named(*args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], str):
                args = (self._label(args[0]), *args[1:])
            elif 'name' in kwargs:
                kwargs['name'] = self._label(kwargs['name'])
            for key in ('out_file', 'out_path'):
                if kwargs.get(key) is not None:
                    kwargs[key] = self._path(kwargs[key])
            return draw(*args, **kwargs)

        return named

    def _label(self, name: str) -> str:
        return f'{self._subnet}_{name}'

    def _path(self, path: str) -> str:
        folder, slash, name = str(path).replace('\\', '/').rpartition('/')
        return f'{folder}{slash}{self._subnet}/{name}'
