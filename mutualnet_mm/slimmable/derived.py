# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Slim classes of stock classes that are met while a network is converted."""

from typing import Any, Dict, Tuple

_DERIVED: Dict[Any, Any] = {}


def derive(mixin: Any, stock: Any, names: Tuple[str, ...] = ()) -> Any:
    """Make a subclass of ``stock`` with ``mixin`` in front, once.

    It has the name of ``stock`` and names its bases again: stock code looks
    for layers by these, such as the ``init_cfg`` of MMEngine. Instances copy
    and pickle; they need ``stock`` alone to be importable.

    Args:
        mixin (type): Its ``members(names)`` are members of the new class.
        stock (type): Of the module to be swapped.
        names (tuple[str]): Say what the mixin has to know. Defaults to none.
    """
    key = mixin, stock, names
    if key not in _DERIVED:
        members = {
            '__module__': stock.__module__,
            '__qualname__': stock.__qualname__,
            '__doc__': stock.__doc__,
            '__reduce_ex__': _reduce,
            'derived_from': key,
            **mixin.members(names),
        }
        bases = (mixin, stock, *stock.__bases__)
        _DERIVED[key] = type(stock)(stock.__name__, bases, members)
    return _DERIVED[key]


def underived(cls: Any) -> Any:
    """Return the stock class that a class was derived from, else itself."""
    return vars(cls).get('derived_from', (None, cls))[1]


def _reduce(self: Any, protocol: int) -> Tuple:
    cls = type(self)
    mixin, stock, names = cls.derived_from
    make, args, *rest = super(cls, self).__reduce_ex__(protocol)
    args = tuple(stock if arg is cls else arg for arg in args)
    return _restore, (mixin, names, make, args), *rest


def _restore(mixin: Any, names: Tuple[str, ...], make: Any, args: Any) -> Any:
    module = make(*args)
    module.__class__ = derive(mixin, type(module), names)
    return module
