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
    Optional,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor, nn

from ..errors import ConfigError, first_line
from ..widths import each_width, stage_widths
from .channels import (
    PLAIN,
    Ranges,
    active_channels,
    active_ranges,
    count,
    take,
)
from .convert import stock_name
from .joints import Joints, find_joints
from .layer_calls import Calls, record_calls
from .meta import meta_copy
from .slim_layer import SlimLayer
from .state import active_width, set_width, slim_states
from .trial import Shape, failing_forward, trial_shapes
from .vectors import SlimVectors

_is_verified: ContextVar[bool] = ContextVar('is_verified', default=False)


@contextmanager
def already_verified() -> Iterator[None]:
    """Let :func:`verify_slicing` prove nothing in a ``with`` block.

    It only finds the joints then. For networks that were proven when they
    were built for the first time, those of files that this package wrote, and
    for parts of a network that is proven as a whole afterwards. Networks that
    other threads build meanwhile are proven as ever.
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
    input_shape: Optional[Sequence[int]] = None,
) -> Joints:
    """Find the joints of a network, and prove that it narrows.

    The layers learn which channels they get (:func:`~.joints.find_joints`).
    Then a narrow pass has to equal the masked full pass, on random data: that
    runs the same weights, blind to what is not active in each layer's input;
    the active channels of every layer, and of every output, must be those of
    the narrow pass. Nothing else of ``module`` is changed, nor is the global
    random state.

    Args:
        module (nn.Module): Converted; where no shape is given,
            its first convolution tells the channels of the input.
        name (str, optional): What errors call it. Defaults to the name of the
            stock class.
        size (int): Side of the square input in pixels, see
            :func:`~.trial.trial_shapes`. Defaults to 32.
        frames (int): Frames of the input of a network over clips. Defaults to
            8.
        fractions (Sequence[float]): Fractions of the widest width to try;
            of each stage, as :func:`~.widths.stage_widths` makes them.
            Defaults to (0.3, 0.7).
        tolerance (float): Largest difference, relative to the largest value
            of the layer. Defaults to 1e-5.
        input_shape (Sequence[int], optional): Shape of the input, in place of
            ``size`` and ``frames``. Defaults to None.

    Returns:
        Joints: What was found, with the shape of an input that it takes.

    Raises:
        ConfigError: Names the first layer that goes wrong.
    """
    name = name or stock_name(module)
    is_verified = _is_verified.get()
    with torch.device('cpu'):  # whatever the default device is
        net = meta_copy(module) if is_verified else _double_copy(module)
        _widen(net)
        shapes = trial_shapes(name, net, size, frames, input_shape)
        joints = _give_joints(name, net, module, shapes[0])
        if not is_verified:
            _prove(net, name, joints, shapes, fractions, tolerance)
    return joints


def proof_copy(module: nn.Module) -> nn.Module:
    """Copy a slim network to prove something on.

    In double precision and evaluation mode, on the CPU and at the widest
    setting.
    """
    net = _double_copy(module)
    _widen(net)
    return net


def _double_copy(module: nn.Module) -> nn.Module:
    try:
        net = copy.deepcopy(module).double().cpu()
    except (TypeError, RuntimeError) as error:
        raise ConfigError(
            f'{stock_name(module)} cannot be copied, as the proof of its '
            f'channels does (it fails with "{first_line(error)}"): keep no '
            'locks, files or computed tensors in it'
        ) from error
    net.eval()  # not chained: stock backbones' ``train`` may not
    _take_single(net)
    return net


def _widen(net: nn.Module) -> None:
    set_width(net, slim_states(net)[0].max_width)
    for state in slim_states(net):
        state.running_stats = True  # those of the copy are random


def _take_single(net: nn.Module) -> None:
    """Let layers in double precision take what stock code makes single.

    Position encodings that are computed in ``forward``, for instance.
    """

    def cast(layer: Any, args: Tuple[Any, ...]) -> Tuple[Any, ...]:
        dtype = layer.weight.dtype
        return tuple(
            x.to(dtype) if getattr(x, 'dtype', dtype) == torch.float else x
            for x in args
        )

    for layer in net.modules():
        if layer._parameters.get('weight') is not None:
            layer.register_forward_pre_hook(cast)


def _give_joints(
    name: str, net: nn.Module, module: nn.Module, shape: Shape
) -> Joints:
    """Find the joints of ``net``, a copy, and give them to ``module``."""
    like = next(net.parameters())
    x = torch.zeros(shape, dtype=like.dtype, device=like.device)
    try:
        joints = find_joints(net, x)
    except ConfigError as error:
        raise ConfigError(f'{name} cannot be slimmed: {error}') from error
    for ours, theirs in zip(module.modules(), net.modules()):
        if isinstance(ours, SlimLayer):
            ours.slim_rule = theirs.slim_rule
            ours.slim_inputs = theirs.slim_inputs
            ours.slim_outputs = theirs.slim_outputs
            ours.slim_unproven = theirs.slim_unproven
        elif isinstance(ours, SlimVectors):
            ours.slim_vectors = theirs.slim_vectors
    return joints


def _prove(
    net: nn.Module,
    name: str,
    joints: Joints,
    shapes: Sequence[Shape],
    fractions: Sequence[float],
    tolerance: float,
) -> None:
    generator = torch.Generator().manual_seed(0)
    randomise(net, generator)
    widest = slim_states(net)[0].max_width
    for fraction, shape in zip(fractions, cycle(shapes)):
        width = stage_widths([widest * f for f in each_width(fraction)])
        x = torch.randn(shape, generator=generator, dtype=torch.double)
        masked = copy.deepcopy(net)
        try:
            with active_width(net, width):
                trace, outputs = record_calls(net, x)
            _mask_inputs(name, masked, trace, width)
            full_trace, full_outputs = record_calls(masked, x)
        except ConfigError as error:
            raise ConfigError(
                f'{name} cannot be slimmed: {error}{_not_understood(joints)}'
            ) from error
        except Exception as error:  # whatever a stock forward may raise
            raise ConfigError(
                f'{name} cannot be slimmed: at width {width:.2g}, or at the '
                f'widest, {failing_forward(error, net, masked)} fails with '
                f'"{first_line(error)}" on an input of '
                f'{" x ".join(map(str, shape))}{_not_understood(joints)}'
            ) from error
        ran = [call.name for call in trace], len(outputs)
        if ran != ([call.name for call in full_trace], len(full_outputs)):
            raise ConfigError(
                f'{name} cannot be slimmed: at width {width:.2g} it runs '
                'other layers, or returns another number of outputs, than at '
                'the widest'
            )
        if fraction == min(fractions):
            _check_narrows(net, name, width, joints, trace, full_trace)
        with active_width(net, width):
            pairs = [
                *_layer_pairs(net, trace, full_trace),
                *_output_pairs(net, joints, outputs, full_outputs),
            ]
        for place, narrow, full in pairs:
            if not is_equal(narrow, full, tolerance):
                raise ConfigError(
                    f'{name} cannot be slimmed: at width {width:.2g} the '
                    f'result of {place} is not that of its active channels '
                    '(channels are joined, split or shuffled before it in a '
                    f'way that is not understood){_not_understood(joints)}'
                )
    if not joints.alike:
        _check_counts(net, name, joints, full_trace)


def _check_counts(
    net: nn.Module, name: str, joints: Joints, full_trace: Calls
) -> None:
    """Run a network whose sums and splits depend on the width at many."""
    like = next(net.parameters())
    x = torch.zeros(joints.input_shape, dtype=like.dtype)
    widest = slim_states(net)[0].max_width
    ran = [call.name for call in full_trace]
    for step in range(1, 20):
        width = widest * step / 20
        with active_width(net, width):
            try:
                trace, _ = record_calls(net, x)
            except Exception as error:  # whatever a stock forward may raise
                raise ConfigError(
                    f'{name} cannot be slimmed: at width {width:.2g} '
                    f'{failing_forward(error, net)} fails with '
                    f'"{first_line(error)}"{_not_understood(joints)}'
                ) from error
            if [call.name for call in trace] != ran:
                raise ConfigError(
                    f'{name} cannot be slimmed: at width {width:.2g} it runs '
                    'other layers than at the widest'
                )
            for call, full in zip(trace, full_trace):
                layer: Any = net.get_submodule(call.name)
                built = full.output.shape[full.axis]
                wanted = count(layer.output_ranges(call.inputs, built))
                found = call.output.shape[call.axis]
                if found != wanted:
                    raise ConfigError(
                        f'{name} cannot be slimmed: at width {width:.2g} '
                        f'layer "{call.name}" makes {found} channels, where '
                        f'{wanted} are active{_not_understood(joints)}'
                    )


def _not_understood(joints: Joints) -> str:
    if not joints.unknown:
        return ''
    return f'; not understood: {", ".join(joints.unknown)}'


_Pairs = Iterator[Tuple[str, Tensor, Optional[Tensor]]]


def _check_narrows(
    net: nn.Module,
    name: str,
    width: float,
    joints: Joints,
    trace: Calls,
    full_trace: Calls,
) -> None:
    """Refuse a network whose joints leave every layer whole."""
    state, could = slim_states(net)[0], False
    for call, full in zip(trace, full_trace):
        channels = full.output.shape[call.axis]
        if call.output.shape[call.axis] < channels:
            return
        layer: Any = net.get_submodule(call.name)
        could |= not layer.slim_rule.fixed and channels > active_channels(
            channels, width, state.max_width, PLAIN, state.rounding
        )
    if could:
        raise ConfigError(
            f'{name} cannot be slimmed: at width {width:.2g} every layer '
            f'keeps all of its channels{_not_understood(joints)}'
        )


def _mask_inputs(
    name: str, net: nn.Module, trace: Calls, width: float
) -> None:
    """Make every layer of ``net`` blind to inactive inputs."""
    seen: Dict[str, int] = {}
    with active_width(net, width):
        for call in trace:
            inputs = call.inputs
            if call.name in seen:
                if seen[call.name] != inputs:
                    raise ConfigError(
                        f'layer "{call.name}" is shared by inputs of '
                        'different widths'
                    )
                continue
            seen[call.name] = inputs
            net.get_submodule(call.name).blind(inputs)
        for part in net.modules():  # that is made of layers
            if hasattr(part, 'blind') and not isinstance(part, SlimLayer):
                part.blind()


def _layer_pairs(net: nn.Module, trace: Calls, full_trace: Calls) -> _Pairs:
    """What each layer gave, and what it should have, at the active width."""
    for call, full in zip(trace, full_trace):
        layer: Any = net.get_submodule(call.name)
        dim = call.axis
        ranges = layer.output_ranges(call.inputs, full.output.shape[dim])
        place = f'layer "{call.name}" ({call.kind})'
        # Of a batch of one, where a layer sees each channel by itself (TANet)
        # the active channels are the leading part of its batch.
        output = full.output[: len(call.output)] if dim else full.output
        yield place, call.output, _taken(output, ranges, dim)


def _output_pairs(
    net: nn.Module,
    joints: Joints,
    outputs: List[Tensor],
    full_outputs: List[Tensor],
) -> _Pairs:
    state = slim_states(net)[0]
    for i, (narrow, full) in enumerate(zip(outputs, full_outputs)):
        if not narrow.dim():  # a number
            yield f'output {i}', narrow, full
            continue
        dim, layout = joints.axes[i], joints.outputs[i]
        ranges: Ranges = ((0, narrow.shape[dim]),)
        if layout is not None:
            ranges = active_ranges(
                layout, state.width, state.max_width, state.rounding
            )
        yield f'output {i}', narrow, _taken(full, ranges, dim)


def _taken(full: Tensor, ranges: Ranges, dim: int) -> Optional[Tensor]:
    return (
        take(full, ranges, dim) if count(ranges) <= full.shape[dim] else None
    )


def is_equal(narrow: Tensor, full: Optional[Tensor], tolerance: float) -> bool:
    """Whether two tensors are alike but for rounding.

    Args:
        narrow (Tensor): Of any shape and type.
        full (Tensor, optional): What it should be; None fits nothing.
        tolerance (float): Largest difference, relative to the largest value.
    """
    if full is None or narrow.shape != full.shape:
        return False
    if not (narrow.numel() and full.is_floating_point()):
        return torch.equal(narrow, full)
    largest = full.abs().max()
    return bool((narrow - full).abs().max() <= tolerance * largest + 1e-12)


def randomise(net: nn.Module, generator: torch.Generator) -> None:
    """Fill parameters, and buffers of slim layers, for a proof, in place."""
    # Fresh statistics (0, 1) are alike in all channels, and some weights are
    # zero at first: both would hide a mix-up of channels.
    # So would the weight of a branch that is not in a layer.
    for layer in net.modules():
        tensors: List[Tensor] = [*layer.parameters(recurse=False)]
        if isinstance(layer, SlimLayer):
            tensors.extend(layer.buffers(recurse=False))
        for tensor in tensors:
            if not tensor.is_floating_point():
                continue
            if tensor.dim() > 1 and tensor.numel() > 1:
                std = tensor[0].numel() ** -0.5
                tensor.data.normal_(0, std, generator=generator)
            else:
                tensor.data.uniform_(0.5, 1.5, generator=generator)
