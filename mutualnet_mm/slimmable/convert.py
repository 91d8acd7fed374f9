# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Make a built module tree slimmable, in place, by class swaps."""

from typing import Any, Dict, List, Mapping, Optional, Set, Tuple, Type, Union

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError
from .batch_norms import (
    SlimBatchNorm1d,
    SlimBatchNorm2d,
    SlimBatchNorm3d,
    SlimBatchNormXd,
    SlimSyncBatchNorm,
)
from .channels import PLAIN, LayerRule
from .derived import derive, underived
from .layers import (
    SlimConv1d,
    SlimConv2d,
    SlimConv3d,
    SlimLinear,
)
from .norms import (
    SlimGroupNorm,
    SlimInstanceNorm1d,
    SlimInstanceNorm2d,
    SlimInstanceNorm3d,
    SlimLayerNorm,
    SlimPReLU,
)
from .slim_layer import SlimLayer
from .state import SlimState
from .transposed import (
    SlimConvTranspose1d,
    SlimConvTranspose2d,
    SlimConvTranspose3d,
)
from .vectors import SlimVectors, vector_axis

_SLIM_CLASSES: Dict[Union[type, str], Type[SlimLayer]] = {}
_TRUSTED_FORWARDS: Set[Any] = set()
_INNER_RULES: Dict[str, Mapping[str, LayerRule]] = {}


def register_layer(stock: Union[type, str], slim: Type[SlimLayer]) -> None:
    """Say which slim class the instances of a stock layer class become.

    Args:
        stock (type or str): Instances of subclasses are swapped too; the
            nearest registered base counts. As text, such as
            ``'project.module.Class'``, it need not be installed.
        slim (type): A :class:`~.slim_layer.SlimLayer` without ``__init__`` or
            parameters of its own. Where it is no subclass of ``stock``, or
            the instance's class has a ``forward`` of its own, one is derived
            from both.
    """
    _SLIM_CLASSES[stock] = slim


for _stock, _slim in (
    (nn.Conv1d, SlimConv1d),
    (nn.Conv2d, SlimConv2d),
    (nn.Conv3d, SlimConv3d),
    (nn.ConvTranspose1d, SlimConvTranspose1d),
    (nn.ConvTranspose2d, SlimConvTranspose2d),
    (nn.ConvTranspose3d, SlimConvTranspose3d),
    (nn.Linear, SlimLinear),
    (nn.BatchNorm1d, SlimBatchNorm1d),
    (nn.BatchNorm2d, SlimBatchNorm2d),
    (nn.BatchNorm3d, SlimBatchNorm3d),
    (nn.SyncBatchNorm, SlimSyncBatchNorm),
    (nn.GroupNorm, SlimGroupNorm),
    (nn.LayerNorm, SlimLayerNorm),
    (nn.InstanceNorm1d, SlimInstanceNorm1d),
    (nn.InstanceNorm2d, SlimInstanceNorm2d),
    (nn.InstanceNorm3d, SlimInstanceNorm3d),
    (nn.PReLU, SlimPReLU),
):
    register_layer(_stock, _slim)


def stock_name(module: nn.Module) -> str:
    """Name of the stock class, also of one with a mixin in front."""
    return getattr(type(module), 'stock_class', type(module)).__name__


def trust_forward(layer_class: Any) -> None:
    """Declare that ``layer_class.forward`` computes what its base's does.

    For library subclasses of stock layers that only work around old releases:
    they become the slim class of their base, which takes less time than to
    run their ``forward``.
    """
    _TRUSTED_FORWARDS.add(layer_class.forward)


def register_inner_rules(stock: str, rules: Mapping[str, LayerRule]) -> None:
    """Say how layers inside of a stock module narrow.

    Args:
        stock (str): Class, such as ``'project.module.Class'``, which need not
            be installed. Subclasses count, too.
        rules (Mapping[str, LayerRule]): By name relative to the module; those
            that it does not have do not matter. A module of no known kind
            that is fixed stays as it is, with all that is in it.
    """
    _INNER_RULES[stock] = rules


def _inner_rules(own: Any) -> Mapping[str, LayerRule]:
    for base in own.__mro__:
        found = _INNER_RULES.get(f'{base.__module__}.{base.__qualname__}')
        if found is not None:
            return found
    return {}


def slim_class(module: nn.Module) -> Optional[Type[SlimLayer]]:
    """Return the slim class for ``module``, or None if it has none.

    A subclass with a ``forward`` of its own keeps it. It is run with the
    active part of the parameters, and the proof of :mod:`.verify` judges;
    one that has parameters, buffers or children that its stock base has not
    is no layer that we know.
    """
    own: Any = type(module)
    base, slim = _registered(own)
    if slim is None:
        return None
    if _runs_as(own, base):
        # What a subclass has of its own, a method say, it keeps; one of a
        # library that only works around old releases has nothing.
        same = own is base or own.forward in _TRUSTED_FORWARDS
        return slim if same and issubclass(slim, base) else derive(slim, own)
    if not slim.any_forward or module._modules:
        return None
    tensors = {**module._parameters, **module._buffers}
    for name, tensor in tensors.items():
        if tensor is not None and name not in slim.tensor_names:
            return None
    return derive(slim, own, ('forward',))


def _registered(own: Any) -> Tuple[Any, Optional[Type[SlimLayer]]]:
    """The nearest base of a class that is registered, and for what."""
    for base in own.__mro__:
        for key in (base, f'{base.__module__}.{base.__qualname__}'):
            if key in _SLIM_CLASSES:
                return base, _SLIM_CLASSES[key]
    return None, None


def _runs_as(own: Any, base: Any) -> bool:
    """Whether a class computes what one of its bases does."""
    if getattr(own, '_conv_forward', None) is not getattr(
        base, '_conv_forward', None
    ):
        return False
    return own.forward is base.forward or own.forward in _TRUSTED_FORWARDS


def convert(
    module: nn.Module,
    state: SlimState,
    rules: Optional[Mapping[str, LayerRule]] = None,
    default: LayerRule = PLAIN,
    strict: bool = True,
) -> None:
    """Swap every layer in ``module`` that is of a registered kind.

    And modules that hold vectors along the channels themselves
    (:mod:`.vectors`), where ``strict``.

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
            otherwise they stay, at full width, unless they keep running
            statistics. Defaults to True.

    Raises:
        ConfigError: Names the module that cannot follow a width, or the rule
            that names no layer.
    """
    rules = dict(rules or {})
    swaps: List[Tuple[Any, Any, LayerRule]] = []
    left: Set[nn.Module] = set()  # as they are
    for name, layer in module.named_modules():
        if isinstance(layer, (SlimLayer, SlimVectors)) or layer in left:
            continue
        for key, rule in _inner_rules(type(layer)).items():
            child = _child(layer, key)
            if slim_class(child) is not None:
                rules.setdefault(_path(name, key), rule)
            elif rule.fixed and not any(
                map(_keeps_statistics, child.modules())
            ):
                left.update(child.modules())
        target = slim_class(layer)
        problem = _refusal(layer, target) if target else _problem(layer)
        if problem and (strict or _keeps_statistics(layer)):
            place = _path(stock_name(module), name)
            raise ConfigError(f'{place} ({stock_name(layer)}) {problem}')
        if target is not None and not problem:
            swaps.append((layer, target, rules.pop(name, default)))
            for key, rule in target.inner_rules.items():
                if key in layer._modules:
                    rules[_path(name, key)] = rule
        elif strict and _large(layer):
            holder = derive(SlimVectors, type(layer), _large(layer))
            swaps.append((layer, holder, default))
    if rules:
        raise ConfigError(
            f'rules for {sorted(rules)} name no layer of '
            f'{stock_name(module)} that is not slim yet'
        )
    for layer, target, rule in swaps:
        layer.__class__ = target
        layer.slim_state = state
        if isinstance(layer, SlimLayer):
            layer.slim_rule = rule
        else:
            layer.slim_vectors = {}


def _child(module: nn.Module, path: str) -> Any:
    for name in path.split('.'):
        module = module._modules.get(name) or nn.Identity()
    return module


def _path(*names: str) -> str:
    return '.'.join(filter(None, names))


def _refusal(layer: nn.Module, target: Type[SlimLayer]) -> str:
    """Why a layer of a known kind cannot follow a width, if so."""
    tensors = {**layer._parameters, **layer._buffers}
    missing = [name for name in target.tensor_names if name not in tensors]
    if missing:
        return (
            f'computes its {missing[0]} from other tensors, as weight and '
            'spectral normalisation do, which cannot follow a width: remove '
            'that first'
        )
    return target.refusal(layer)


def _keeps_statistics(layer: nn.Module) -> bool:
    """Whether it would mix those of all subnets, if it were left as it is."""
    return bool(getattr(layer, 'track_running_stats', False))


def _problem(layer: nn.Module) -> str:
    """Why a module of no known kind cannot follow a width, if so."""
    base, slim = _registered(type(layer))
    if slim is not None and _large(layer):
        return (
            f'computes other than the {base.__name__} that it is made from, '
            'with statistics, tensors or layers of its own, which cannot '
            'follow a width'
        )
    others = [
        name
        for name in _large(layer)
        if vector_axis(layer._parameters[name]) is None
    ]
    if not others:
        return ''
    return (
        f'has parameters of its own ({", ".join(others)}), which cannot '
        'follow a width: only layers of a known kind (convolutions, linear '
        'layers, norms) and vectors along the channels can'
    )


def _large(layer: nn.Module) -> Tuple[str, ...]:
    """Names of a module's own parameters of more than one number."""
    return tuple(
        name
        for name, value in layer._parameters.items()
        if value is not None and value.numel() > 1
    )


# What the swap and the joints add to a layer; a pass adds more.
_OF_SWAP = (
    *('slim_state', 'slim_rule', 'slim_inputs', 'slim_outputs'),
    *('slim_unproven', 'slim_vectors', 'slim_affines'),
)
_OF_PASS = ('subnet_stats', 'collector', 'slim_kept')


def restore(layer: nn.Module, stock: Optional[type] = None) -> None:
    """Swap a slim layer back to the stock class, as it stands.

    Args:
        layer (nn.Module): Changed in place.
        stock (type, optional): The class that it had. Defaults to None: the
            one that its kind is registered for.
    """
    if stock is None:
        stock = _stock_class(layer)
    layer.__class__ = stock
    for name in (*_OF_SWAP, *_OF_PASS):
        layer.__dict__.pop(name, None)


def _stock_class(layer: Any) -> Any:
    if type(layer) is SlimBatchNormXd:  # it was a SyncBatchNorm once
        layer.process_group = None
        return nn.SyncBatchNorm
    cls: Any = underived(type(layer))
    for stock, slim in _SLIM_CLASSES.items():
        if cls is slim:
            return stock
    return cls


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
        self._module = module
        self._places: Dict[str, Tuple[str, str, nn.Module]] = {}
        for path, parent in module.named_modules():
            for key, child in parent._modules.items():
                if isinstance(child, SlimLayer):
                    self._places[_path(path, key)] = path, key, child

    def adopt(self) -> List[Tuple[str, Any]]:
        """Make new batch norms slim, as those were whose place they took.

        Returns:
            list: Names of the layers that something else is in the place of,
            and what that is: a module, or None.
        """
        changed = []
        for name, (path, key, old) in self._places.items():
            # By its path: the parent may have been replaced, too.
            try:
                parent = self._module.get_submodule(path)
            except AttributeError:
                changed.append((name, None))
                continue
            new: Any = parent._modules.get(key)
            if new is old:
                continue
            if not _adopt(new, old):
                changed.append((name, new))
                continue
            self._places[name] = path, key, new
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
