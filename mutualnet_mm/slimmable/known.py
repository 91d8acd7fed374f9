# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What tracing has found of a network's channels, kept as plain values.

A file that holds it opens without a trace. It is taken only where it was found
by the same code of the same classes; otherwise the network is traced again.
"""

import hashlib
import json
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import astuple
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set

from torch import nn

from ..errors import UsageError, is_count
from ..version import __version__
from .channels import LayerRule, Layout, Piece
from .joints import Joints
from .slim_layer import SlimLayer
from .static import StaticSizes
from .vectors import SlimVectors

_FORMAT = 2  # raise it where the proof finds other channels than before
_OWN = __name__.rpartition('.')[0]

_given: ContextVar[Optional['KnownChannels']] = ContextVar(
    'given', default=None
)
_defers: ContextVar[bool] = ContextVar('defers', default=False)


class KnownChannels:
    """What the layers of a network get and keep.

    Args:
        content (dict): Plain values, as :meth:`of` makes them.

    Attributes:
        given (bool): Whether a network was told, by :meth:`give`.
    """

    def __init__(self, content: Dict[str, Any]) -> None:
        self._content = content
        self.given = False

    @classmethod
    def of(cls, model: nn.Module, config: str) -> Optional['KnownChannels']:
        """Take down what was found while a network was built.

        Args:
            model (nn.Module): Its ``backbone`` has ``slim_joints``.
            config (str): What built it. Its SHA-256 is taken down.

        Returns:
            KnownChannels: None if its classes are of no file, so that nothing
            tells whether they are the same later.
        """
        code = _code(model)
        if code is None:
            return None
        rules = _Rules()
        layers: Dict[str, Any] = {}
        vectors: Dict[str, Any] = {}
        for name, layer in model.named_modules():
            if isinstance(layer, SlimLayer):
                layers[name] = [
                    rules.number(layer.slim_rule),
                    rules.plain(layer.slim_inputs),
                    rules.plain(layer.slim_outputs),
                    layer.slim_unproven,
                ]
            elif isinstance(layer, SlimVectors):
                vectors[name] = {
                    key: rules.plain(layout)
                    for key, layout in layer.slim_vectors.items()
                }
        backbone: Any = model.backbone
        joints = backbone.slim_joints
        return cls(
            dict(
                format=_FORMAT,
                code=code,
                origin=_sha256(config),
                layers=layers,
                vectors=vectors,
                joints=[
                    joints.input_shape,
                    [rules.plain(layout) for layout in joints.outputs],
                    *(joints.axes, joints.unknown, joints.alike),
                ],
                rules=rules.all,
            )
        )

    @classmethod
    def read(cls, text: str) -> Optional['KnownChannels']:
        """Read what :meth:`text` wrote.

        Args:
            text (str): As written.

        Returns:
            KnownChannels: None if another release wrote it.

        Raises:
            UsageError: If it is damaged.
        """
        try:
            content = json.loads(text)
            found = content['format']
            content['origin']
        except (KeyError, TypeError, ValueError, RecursionError):
            raise _damaged() from None
        return cls(content) if found == _FORMAT else None

    def is_of(self, config: str) -> bool:
        """Whether this very config built the network."""
        return self._content['origin'] == _sha256(config)

    def text(self) -> str:
        """Write it as JSON."""
        return json.dumps(self._content, separators=(',', ':'))

    def give(self, model: Any) -> bool:
        """Tell the layers of a network, and its backbone, what they get.

        Args:
            model (nn.Module): Built alike, but not traced.

        Returns:
            bool: False if other code built it: then nothing is changed.

        Raises:
            UsageError: Names the layer that the finding does not fit.
        """
        content = self._content
        if content.get('code') != _code(model):
            return False
        try:
            rules = [LayerRule(*rule) for rule in content['rules']]
            shape, outputs, axes, unknown, alike = content['joints']
            joints = Joints(
                tuple(shape),
                tuple(_layout(rows, rules) for rows in outputs),
                *(tuple(axes), tuple(unknown), alike),
            )
            layers = {
                name: (rules[rule], _layout(i, rules), _layout(o, rules), not_)
                for name, (rule, i, o, not_) in content['layers'].items()
            }
            vectors = {
                name: {key: _layout(rows, rules) for key, rows in of.items()}
                for name, of in content['vectors'].items()
            }
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise _damaged() from None
        own: Dict[str, Any] = dict(model.named_modules())
        _check_names(own, layers, SlimLayer)
        _check_names(own, vectors, SlimVectors)
        for name, (_, inputs, outputs, _) in layers.items():
            _check_layer(name, own[name], inputs, outputs)
        for name, narrow in vectors.items():
            for key, layout in narrow.items():
                whole = own[name]._parameters.get(key)
                if whole is None or whole.numel() != _size(layout):
                    raise _misfit(f'{name}.{key}')
        for name, found in layers.items():
            layer = own[name]
            layer.slim_rule, layer.slim_inputs = found[:2]
            layer.slim_outputs, layer.slim_unproven = found[2:]
        for name, narrow in vectors.items():
            own[name].slim_vectors = narrow
        model.backbone.slim_joints = joints
        self.given = True
        return True

    @property
    def sizes(self) -> Optional[StaticSizes]:
        """StaticSizes: Those of the one subnet of the file; None if of all.

        Raises:
            UsageError: If they are damaged.
        """
        found = self._content.get('sizes')
        if found is None:
            return None
        try:
            channels, folds = found
            return StaticSizes(
                {name: (i, o) for name, (i, o) in channels.items()},
                [(convolution, norm) for convolution, norm in folds],
            )
        except (AttributeError, TypeError, ValueError):
            raise _damaged() from None

    def add_sizes(self, sizes: StaticSizes) -> None:
        """Take down the sizes of one subnet, for a file of it alone."""
        self._content['sizes'] = sizes


@contextmanager
def known_channels(known: Optional[KnownChannels]) -> Iterator[None]:
    """Let the next network that is built in a ``with`` block need no trace.

    Args:
        known (KnownChannels, optional): What was found of it before. None
            changes nothing.
    """
    token = _given.set(known)
    try:
        yield
    finally:
        _given.reset(token)


def given_channels() -> Optional[KnownChannels]:
    """What :func:`known_channels` was given, until a network takes it."""
    return _given.get()


@contextmanager
def take_known() -> Iterator[Optional[KnownChannels]]:
    """Take what :func:`known_channels` was given, for one network.

    Networks that are built inside or afterwards are traced as ever; but the
    backbones of this one need not be while it is built in the ``with`` block.
    """
    known = _given.get()
    _given.set(None)
    token = _defers.set(known is not None)
    try:
        yield known
    finally:
        _defers.reset(token)


def defers_joints() -> bool:
    """Whether a backbone that is built now will be told its joints."""
    return _defers.get()


class _Rules:
    """Numbers rules: most layers have one of a few."""

    def __init__(self) -> None:
        self.all: List[tuple] = []
        self._numbers: Dict[LayerRule, int] = {}

    def number(self, rule: LayerRule) -> int:
        if rule not in self._numbers:
            self._numbers[rule] = len(self.all)
            self.all.append(astuple(rule))
        return self._numbers[rule]

    def plain(self, layout: Optional[Layout]) -> Optional[List[list]]:
        if layout is None:
            return None
        return [
            [p.size, p.made, self.number(p.rule), p.block, p.skip, p.repeat]
            for p in layout
        ]


def _layout(
    rows: Optional[List[list]], rules: List[LayerRule]
) -> Optional[Layout]:
    if rows is None:
        return None
    pieces = []
    for size, made, rule, block, skip, repeat in rows:
        counts = size, made, block, skip + 1, repeat
        if not all(map(is_count, counts)):
            raise ValueError(f'{counts} are no numbers of channels')
        pieces.append(Piece(size, made, rules[rule], block, skip, repeat))
    return tuple(pieces)


def _check_names(own: Dict[str, Any], found: Any, kind: type) -> None:
    names = {name for name, layer in own.items() if isinstance(layer, kind)}
    for name in sorted(names.symmetric_difference(found)):
        raise _misfit(name)


def _check_layer(
    name: str,
    layer: Any,
    inputs: Optional[Layout],
    outputs: Optional[Layout],
) -> None:
    if inputs is not None:
        size = layer.built_inputs
        if size is not None and size != _size(inputs):
            raise _misfit(name)
    if outputs is not None and layer.built != _size(outputs):
        raise _misfit(name)


def _damaged() -> UsageError:
    return UsageError(
        'what the file says about the channels of its layers is damaged: make '
        'the file again'
    )


def _misfit(name: str) -> UsageError:
    return UsageError(
        'what the file says about the channels of its layers does not fit '
        f'layer {name!r}: make the file again'
    )


def _size(layout: Optional[Layout]) -> int:
    return sum(piece.size for piece in layout or ())


def _code(model: nn.Module) -> Optional[str]:
    """Tell the code of a network's classes: versions, and SHA-256 of files.

    None if one of them has no file. Of the kinds of layers that this package
    defines, its version and the format say enough.
    """
    modules: Set[str] = set()
    for kind in {type(module) for module in model.modules()}:
        modules.update(base.__module__ for base in kind.__mro__)
    modules.discard('builtins')
    packages = {name.partition('.')[0] for name in modules} | {'torch'}
    parts: List[Any] = [_FORMAT, __version__]
    for name in sorted(packages):
        parts.append([name, _version(name)])
    for name in sorted(modules):
        if not name.startswith(('torch.', f'{_OWN}.')):
            file = getattr(sys.modules.get(name), '__file__', None)
            if file is None or not Path(file).is_file():
                return None
            digest = hashlib.sha256(Path(file).read_bytes())
            parts.append([name, digest.hexdigest()])
    return _sha256(json.dumps(parts))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _version(package: str) -> str:
    return str(getattr(sys.modules.get(package), '__version__', ''))
