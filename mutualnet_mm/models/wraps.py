# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Put a mixin in front of a stock class that a config names."""

from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any, Iterator, Tuple, Union

from ..config.stock_errors import explain
from ..errors import ConfigError, first_line
from ..registry import MODELS

# Which recognizers of mmaction2 take by these names.
_UNREGISTERED = ('torchvision', 'timm')


def find_class(wraps: Union[str, type, None], place: str) -> type:
    """Return the stock class that ``wraps`` names.

    Args:
        wraps (str or type): A name in the model registry of the current
            scope (``'ResNet'``), of a named one (``'mmpretrain.ResNet'``), or
            a class.
        place (str): Where a config says it, such as ``'model.backbone'``.

    Raises:
        ConfigError: If there is no such class.
    """
    if isinstance(wraps, type):
        return wraps
    if not isinstance(wraps, str):
        raise ConfigError(
            f'{place}.wraps={wraps!r}: give the name of a registered class, '
            'or a class'
        )
    scope = wraps.partition('.')[0] if '.' in wraps else None
    if scope in _UNREGISTERED:
        raise ConfigError(
            f'wraps={wraps!r}: networks of {scope} are not registered by '
            'name: name one of mmpretrain, mmdet or mmaction, such as '
            "'mmpretrain.ResNet'"
        )
    if scope is not None:
        try:
            import_module(f'{scope}.registry')
        # An assertion: what mmaction2 says of a version of mmcv.
        except (ImportError, AssertionError) as error:
            # Of a package without a registry, it is a path to the class.
            is_path = isinstance(error, ModuleNotFoundError) and (
                error.name == f'{scope}.registry'
            )
            if not is_path:
                raise ConfigError(
                    f'wraps={wraps!r}: {scope} cannot be imported ({error}); '
                    'install it or name a class of another project'
                ) from error
    with MODELS.switch_scope_and_registry(None) as registry:
        found = registry.get(wraps)
        if isinstance(found, type):
            return found
        near = get_close_matches(wraps, registry.module_dict)
    hint = (
        f', did you mean {near[0]!r}? Your own is' if near else ': your own is'
    )
    hint += ' registered by the custom_imports of the config'
    raise ConfigError(
        f'wraps={wraps!r} is not a model class registered in '
        f'scope {registry.scope!r}{hint}'
    )


Stock: Any = object
"""Base of mixins: for type checkers, any class that they are mixed into."""


_PACKAGE = Path(__file__).parents[1]


@contextmanager
def stock_arguments(model: Any) -> Iterator[None]:
    """Say in one line which settings a stock constructor does not take.

    Args:
        model: Made by :func:`mix`, as it calls the constructor of the stock
            class in the ``with`` block.

    Raises:
        ConfigError: Names the stock class and what it says. A defect of our
            own, in a part that the stock class builds, passes as it is.
    """
    try:
        yield
    except (KeyError, TypeError, AssertionError) as error:
        # Without this frame and the one of the `with` block.
        calls = extract_tb(error.__traceback__)[2:]
        if any(_PACKAGE in Path(call.filename).parents for call in calls):
            raise
        text = explain(error)
        if text is None:
            said = first_line(error)
            if not str(error) and calls:  # an assertion that says nothing
                said = calls[-1].line or said
            name = type(model).stock_class.__name__
            text = f'wraps={name!r} cannot be built as set: {said}'
        raise ConfigError(text) from error


@lru_cache(maxsize=None)
def mix(mixin: Any, stock: Any) -> Any:
    """Make ``class <mixin.prefix><stock>(mixin, stock)``, once.

    The result is a subclass of ``stock``, has its checkpoint keys and
    pickles: it is made again on loading.

    Raises:
        ConfigError: If ``stock`` has the mixin already.
    """
    if issubclass(stock, mixin):
        raise ConfigError(
            f'wraps={stock.__name__} is made by {mixin.__name__} already: use '
            'the stock class'
        )
    return type(stock)(
        f'{mixin.prefix}{stock.__name__}',
        (mixin, stock),
        {
            '__module__': mixin.__module__,
            '__doc__': f'``{stock.__name__}`` with :class:`{mixin.__name__}`.',
            '__reduce_ex__': _reduce,
            'stock_class': stock,
            'mixin_class': mixin,
        },
    )


def swap(module: Any, mixin: Any) -> None:
    """Put a mixin in front of the class of a built module, in place."""
    stock: Any = type(module)
    module.__class__ = mix(mixin, stock)


def _reduce(self: Any, protocol: int) -> Tuple:
    del protocol
    cls = type(self)
    # As ``nn.Module`` has it: what ``compile()`` made is left out, since it
    # would keep running the original.
    state = self.__getstate__() if hasattr(self, '__getstate__') else None
    state = dict(self.__dict__ if state is None else state)
    state.pop('_compiled_call_impl', None)
    return _restore, (cls.mixin_class, cls.stock_class), state


def _restore(mixin: type, stock: type) -> Any:
    cls = mix(mixin, stock)
    return cls.__new__(cls)
