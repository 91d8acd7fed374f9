# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Put a mixin in front of a stock class that a config names."""

from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from typing import Any, Tuple, Union

from ..errors import ConfigError
from ..registry import MODELS


def find_class(wraps: Union[str, type, None]) -> type:
    """Return the stock class that ``wraps`` names.

    Args:
        wraps (str or type): A name in the model registry of the current
            scope (``'ResNet'``), of a named one (``'mmpretrain.ResNet'``), or
            a class.

    Raises:
        ConfigError: If there is no such class.
    """
    if isinstance(wraps, type):
        return wraps
    if not isinstance(wraps, str):
        raise ConfigError(
            f'wraps={wraps!r}: give the name of a registered class, or a class'
        )
    scope = wraps.partition('.')[0] if '.' in wraps else None
    if scope is not None:
        try:
            import_module(f'{scope}.registry')
        except ImportError as error:
            raise ConfigError(
                f'wraps={wraps!r}: {scope} cannot be imported ({error}); '
                'install it or name a class of another project'
            ) from error
    with MODELS.switch_scope_and_registry(None) as registry:
        found = registry.get(wraps)
        if isinstance(found, type):
            return found
        near = get_close_matches(wraps, registry.module_dict)
    hint = f', did you mean {near[0]!r}?' if near else ''
    raise ConfigError(
        f'wraps={wraps!r} is not a model class registered in '
        f'scope {registry.scope!r}{hint}'
    )


Stock: Any = object
"""Base of mixins: for type checkers, any class that they are mixed into."""


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
