# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Make a built module tree slimmable, in place, by class swaps."""

from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError
from .channels import PLAIN, LayerRule
from .layers import (
    SlimBatchNorm1d,
    SlimBatchNorm2d,
    SlimBatchNorm3d,
    SlimBatchNormXd,
    SlimConv2d,
    SlimConv3d,
    SlimLayer,
    SlimLinear,
    SlimSyncBatchNorm,
)
from .state import SlimState

_SLIM_CLASSES: Dict[type, type] = {}
_KNOWN_FORWARDS: Set[Any] = set()


def register_layer(stock: Any, slim: type) -> None:
    """Say which slim class the instances of a stock layer class become.

    Args:
        stock (type): Subclasses are swapped too, unless they have a
            ``forward`` of their own. Of two registered bases the one
            registered last counts.
        slim (type): A :class:`~.layers.SlimLayer` and a subclass of
            ``stock``, without ``__init__`` or parameters of its own.
    """
    _SLIM_CLASSES[stock] = slim
    _KNOWN_FORWARDS.add(stock.forward)


for _stock, _slim in (
    (nn.Conv2d, SlimConv2d),
    (nn.Conv3d, SlimConv3d),
    (nn.Linear, SlimLinear),
    (nn.BatchNorm1d, SlimBatchNorm1d),
    (nn.BatchNorm2d, SlimBatchNorm2d),
    (nn.BatchNorm3d, SlimBatchNorm3d),
    (nn.SyncBatchNorm, SlimSyncBatchNorm),
):
    register_layer(_stock, _slim)


def stock_name(module: nn.Module) -> str:
    """Name of the stock class, also of one with a mixin in front."""
    return getattr(type(module), 'stock_class', type(module)).__name__


def trust_forward(layer_class: Any) -> None:
    """Declare that ``layer_class.forward`` computes what its base's does.

    For library subclasses of stock layers that only work around old
    releases. A subclass with a ``forward`` of its own is otherwise never
    swapped: the swap would silently drop what it does.
    """
    _KNOWN_FORWARDS.add(layer_class.forward)


def slim_class(module: nn.Module) -> Optional[type]:
    """Return the slim class for ``module``, or None if it has none."""
    if type(module).forward not in _KNOWN_FORWARDS:
        return None
    convolve = getattr(type(module), '_conv_forward', None)
    if convolve not in (
        None,
        nn.Conv2d._conv_forward,
        nn.Conv3d._conv_forward,
    ):
        return None
    for stock, slim in reversed(_SLIM_CLASSES.items()):
        if isinstance(module, stock):
            return slim
    return None


def convert(
    module: nn.Module,
    state: SlimState,
    rules: Optional[Mapping[str, LayerRule]] = None,
    default: LayerRule = PLAIN,
    strict: bool = True,
) -> None:
    """Swap every convolution, batch norm and linear layer in ``module``.

    Parameters, buffers, names and attributes stay as they are, so the
    ``state_dict`` does not change. Layers that are slim already are kept as
    they are. Nothing is changed where an error is raised.

    Args:
        module (nn.Module): Changed in place.
        state (SlimState): Shared by all swapped layers.
        rules (Mapping[str, LayerRule], optional): Rules by layer name,
            relative to ``module``. Defaults to None.
        default (LayerRule): For layers not named. Defaults to a plain one.
        strict (bool): Refuse modules with parameters that cannot be swapped;
            otherwise they stay, at full width. Defaults to True.

    Raises:
        ConfigError: Names the module that cannot follow a width, or the rule
            that names no layer.
    """
    rules = dict(rules or {})
    swaps = []
    for name, layer in module.named_modules():
        if isinstance(layer, SlimLayer):
            continue
        target = slim_class(layer)
        if target is not None:
            swaps.append((layer, target, rules.pop(name, default)))
            continue
        own = [k for k, v in layer._parameters.items() if v is not None]
        if strict and own:
            place = '.'.join(filter(None, (stock_name(module), name)))
            raise ConfigError(
                f'{place} ({stock_name(layer)}) has parameters of its own '
                f'({", ".join(own)}), which cannot follow a width: only '
                'convolutions, batch norms and linear layers with the stock '
                'forward can'
            )
    if rules:
        raise ConfigError(
            f'rules for {sorted(rules)} name no layer of '
            f'{stock_name(module)} that is not slim yet'
        )
    for layer, target, rule in swaps:
        layer.__class__ = target
        layer.slim_state, layer.slim_rule = state, rule


# What the swap and the joints add to a layer; a pass adds more.
_OF_SWAP = ('slim_state', 'slim_rule', 'slim_inputs', 'slim_outputs')
_OF_PASS = ('subnet_stats', 'collector')


def restore(layer: nn.Module) -> None:
    """Swap a slim layer back to the stock class, as it stands."""
    if type(layer) is SlimBatchNormXd:  # it was a SyncBatchNorm once
        layer.__class__, layer.process_group = nn.SyncBatchNorm, None
    for stock, slim in _SLIM_CLASSES.items():
        if type(layer) is slim:
            layer.__class__ = stock
    for name in (*_OF_SWAP, *_OF_PASS):
        layer.__dict__.pop(name, None)


class BuiltLayers:
    """Remembers the slim layers of a module tree, and notices new ones.

    Code around a model replaces layers after the build: ``cfg.sync_bn`` and
    MMEngine's reverting of it put in new batch norms, ``fuse_conv_bn`` and
    ``switch_to_deploy`` take layers away. What does the same work is made
    slim again; anything else would run narrow subnets wrong without an error.

    Args:
        module (nn.Module): With slim layers. Copies of it (deepcopy, pickle)
            that hold this object get one of their own layers.
    """

    def __init__(self, module: nn.Module) -> None:
        self._places: Dict[str, Tuple[nn.Module, str, nn.Module]] = {}
        for path, parent in module.named_modules():
            for key, child in parent._modules.items():
                if isinstance(child, SlimLayer):
                    name = '.'.join(filter(None, (path, key)))
                    self._places[name] = parent, key, child

    def adopt(self) -> List[Tuple[str, Any]]:
        """Make new batch norms slim, as those were whose place they took.

        Returns:
            list: Names of the layers that something else is in the place of,
            and what that is: a module, or None.
        """
        changed = []
        for name, (parent, key, old) in self._places.items():
            new: Any = parent._modules.get(key)
            if new is old:
                continue
            if not _adopt(new, old):
                changed.append((name, new))
                continue
            self._places[name] = parent, key, new
        return changed


def _adopt(new: Any, old: Any) -> bool:
    if not isinstance(old, _BatchNorm) or not isinstance(new, _BatchNorm):
        return False
    if not isinstance(new, SlimLayer):
        target = slim_class(new)
        if target is None:
            # MMEngine reverts a SyncBatchNorm to one of any dimension.
            if type(new).forward is not _BatchNorm.forward:
                return False
            target = SlimBatchNormXd
        new.__class__ = target
    # Not by ``setattr``: nothing of these is a parameter or a module.
    vars(new).update({k: v for k, v in vars(old).items() if k in _OF_SWAP})
    return True
