# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Proof that a converted network narrows to its leading channels.

Slicing assumes that channel ``i`` of a layer's input is channel ``i`` of the
layer before. Concatenation and channel shuffling break this *silently*: the
shapes still fit. So every converted network is tried once, against an
independent computation on the full-width one.
"""

import copy
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import cycle
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError, first_line
from .convert import stock_name
from .layers import SlimLayer
from .state import active_width, set_width, slim_states

_is_verified: ContextVar[bool] = ContextVar('is_verified', default=False)


@contextmanager
def already_verified() -> Iterator[None]:
    """Let :func:`verify_slicing` pass everything in a ``with`` block.

    For networks that were verified when they were built for the first time:
    those of files that this package wrote. Networks that other threads build
    meanwhile are verified as ever.
    """
    token = _is_verified.set(True)
    try:
        yield
    finally:
        _is_verified.reset(token)


def verify_slicing(
    module: nn.Module,
    name: Optional[str] = None,
    size: int = 32,
    frames: int = 8,
    fractions: Sequence[float] = (0.3, 0.7),
    tolerance: float = 1e-5,
) -> None:
    """Check that a narrow pass equals the masked full pass, on random data.

    The full pass runs the same weights with the columns beyond each layer's
    recorded input width set to zero; the leading channels of every layer must
    then be those of the narrow pass. ``module`` itself is not changed, nor is
    the global random state.

    Args:
        module (nn.Module): Converted; its first convolution tells the
            channels and dimensions of the input.
        name (str, optional): What errors call it. Defaults to the name of the
            stock class.
        size (int): Side of the square input in pixels. A network that takes
            none so small is tried with seven and eight times that, or half
            of it: two sizes, since one that flattens its map runs at a single
            one. Defaults to 32.
        frames (int): Frames of the input of a network over clips, which is
            also tried with twice as many. Defaults to 8.
        fractions (Sequence[float]): Fractions of the widest width to try.
            Defaults to (0.3, 0.7).
        tolerance (float): Largest difference, relative to the largest value
            of the layer. Defaults to 1e-5.

    Raises:
        ConfigError: Names the first layer that goes wrong.
    """
    if _is_verified.get():
        return
    name = name or stock_name(module)
    with torch.device('cpu'):  # whatever the default device is
        _verify(module, name, size, frames, fractions, tolerance)


def _verify(
    module: nn.Module,
    name: str,
    size: int,
    frames: int,
    fractions: Sequence[float],
    tolerance: float,
) -> None:
    generator = torch.Generator().manual_seed(0)
    net = copy.deepcopy(module).double().cpu()
    net.eval()  # not chained: stock backbones' ``train`` returns nothing
    _randomise(net, generator)
    widest = slim_states(net)[0].max_width
    set_width(net, widest)  # whatever is active in ``module``
    shapes = _input_shapes(name, net, size, frames)
    for fraction, shape in zip(fractions, cycle(shapes)):
        width = widest * fraction
        x = torch.randn(shape, generator=generator, dtype=torch.double)
        masked = copy.deepcopy(net)
        try:
            with active_width(net, width):
                trace, outputs = _record(net, x)
            _mask_inputs(name, masked, trace)
            full_trace, full_outputs = _record(masked, x)
        except ConfigError:
            raise
        except Exception as error:  # whatever a stock forward may raise
            raise ConfigError(
                f'{name} cannot be slimmed: at width {width:.2g}, or at the '
                f'widest, {_failing_forward(error, net, masked)} fails with '
                f'"{first_line(error)}" on an input of '
                f'{" x ".join(map(str, shape))}'
            ) from error
        ran = [call.name for call in trace], len(outputs)
        if ran != ([call.name for call in full_trace], len(full_outputs)):
            raise ConfigError(
                f'{name} cannot be slimmed: at width {width:.2g} it runs '
                'other layers, or returns another number of outputs, than at '
                'the widest'
            )
        pairs = [
            (f'layer "{a.name}" ({a.kind})', a.output, b.output, a.channel_dim)
            for a, b in zip(trace, full_trace)
        ]
        pairs += [
            (f'output {i}', a, b, -1 if a.dim() in (2, 3) else 1)
            for i, (a, b) in enumerate(zip(outputs, full_outputs))
        ]
        for place, narrow, full, dim in pairs:
            if not _leads(narrow, full, dim, tolerance):
                raise ConfigError(
                    f'{name} cannot be slimmed: at width {width:.2g} the '
                    f'result of {place} is not that of the leading channels '
                    '(channels are concatenated, split or shuffled before it)'
                )


class _Call(NamedTuple):
    name: str
    kind: str
    inputs: int
    output: Tensor
    channel_dim: int


Trace = List[_Call]


def _record(net: nn.Module, x: Tensor) -> Tuple[Trace, List[Tensor]]:
    trace: Trace = []
    handles = []
    for name, layer in net.named_modules():
        if isinstance(layer, SlimLayer):

            def hook(
                layer: nn.Module, args: tuple, out: Tensor, name: str = name
            ) -> None:
                dim = -1 if isinstance(layer, nn.Linear) else 1
                # Cloned: an in-place activation may come next.
                kind = type(layer).__name__
                inputs = args[0].shape[dim]
                trace.append(_Call(name, kind, inputs, out.clone(), dim))

            handles.append(layer.register_forward_hook(hook))
    try:
        with torch.no_grad():
            outputs = list(_tensors(net(x)))
    finally:
        for handle in handles:
            handle.remove()
    return trace, outputs


def _mask_inputs(name: str, net: nn.Module, trace: Trace) -> None:
    seen: Dict[str, int] = {}
    for call in trace:
        inputs = call.inputs
        if seen.setdefault(call.name, inputs) != inputs:
            raise ConfigError(
                f'{name} cannot be slimmed: layer "{call.name}"'
                ' is shared by inputs of different widths'
            )
        layer = net.get_submodule(call.name)
        if (
            not isinstance(layer, _BatchNorm)
            and getattr(layer, 'groups', 1) == 1
        ):
            tail = layer.slim_rule.input_tail
            end = layer.weight.shape[1] - tail
            layer.weight.data[:, inputs - tail : end] = 0


def _leads(narrow: Tensor, full: Tensor, dim: int, tolerance: float) -> bool:
    if narrow.dim() != full.dim() or narrow.shape[dim] > full.shape[dim]:
        return False
    full = full.narrow(dim, 0, narrow.shape[dim])
    return narrow.shape == full.shape and bool(
        (narrow - full).abs().max() <= tolerance * full.abs().max() + 1e-12
    )


def _randomise(net: nn.Module, generator: torch.Generator) -> None:
    # Fresh statistics (0, 1) are alike in all channels, and some weights are
    # zero at first: both would hide a mix-up of channels.
    for layer in net.modules():
        if not isinstance(layer, SlimLayer):
            continue
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.dim() > 1:
                std = tensor[0].numel() ** -0.5
                tensor.data.normal_(0, std, generator=generator)
            elif tensor.dim() == 1:
                tensor.data.uniform_(0.5, 1.5, generator=generator)


def input_channels(module: nn.Module) -> int:
    """Channels of a network's input: those of its first convolution."""
    return _first_convolution(module).in_channels


def _first_convolution(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            return layer
    raise ConfigError(f'{stock_name(module)} has no convolution to slim')


def _input_shapes(
    name: str, net: nn.Module, size: int, frames: int
) -> List[Tuple[int, ...]]:
    """Inputs that the network takes at full width: one, or of two sizes."""
    first = _first_convolution(net)
    leads = _leading_axes(net, first, frames)
    found: Optional[Exception] = None
    for lead in leads:
        for sides in ((size,), (7 * size, 8 * size), (3.5 * size, 4 * size)):
            shapes = [(*lead, int(side), int(side)) for side in sides]
            error = _error(net, shapes[0])
            if error is None:
                return shapes
            # What the input that is most likely meant fails with.
            if lead == leads[0] and len(sides) > 1:
                found = found or error
    assert found is not None
    *others, last = [' x '.join(map(str, (*lead, 'H', 'W'))) for lead in leads]
    shapes_tried = f'{", ".join(others)} or {last}' if others else last
    raise ConfigError(
        f'{name} does not run at full width on {size}, {int(3.5 * size)} or '
        f'{7 * size} pixels, tried with inputs of {shapes_tried}: '
        f'{_failing_forward(found, net)} fails with "{first_line(found)}"'
    ) from found


def _leading_axes(
    net: nn.Module, first: nn.Module, frames: int
) -> List[Tuple[int, ...]]:
    """Axes before height and width, the most likely ones first."""
    channels = first.in_channels
    if isinstance(first, nn.Conv3d):
        return [(1, channels, frames), (1, channels, 2 * frames)]
    # A network of 2D layers may take clips (C2D), or frames as a batch (TSM).
    segments = {
        getattr(module, 'num_segments', None) for module in net.modules()
    }
    batches = [n for n in segments if isinstance(n, int)]
    return [
        (1, channels),
        (1, channels, frames),
        *((number, channels) for number in batches),
    ]


def _error(net: nn.Module, shape: Tuple[int, ...]) -> Optional[Exception]:
    try:
        with torch.no_grad():
            net(torch.zeros(shape, dtype=torch.double))
    except Exception as error:  # whatever the backbone makes of it
        return error
    return None


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _failing_forward(error: Exception, *nets: nn.Module) -> str:
    """Name the innermost module on the error's way up."""
    names = {id(m): name for net in nets for name, m in net.named_modules()}
    place, step = 'its forward', error.__traceback__
    while step is not None:
        module = step.tb_frame.f_locals.get('self')
        if names.get(id(module)):
            name = names[id(module)]
            place = f'the forward of layer "{name}" ({stock_name(module)})'
        step = step.tb_next
    return place
