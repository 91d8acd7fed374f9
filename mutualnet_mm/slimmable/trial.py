# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Inputs that a network takes, found by trying."""

import operator
from typing import List, Optional, Sequence, Tuple

import torch
from torch import nn

from ..errors import ConfigError, first_line
from .convert import stock_name
from .meta import meta_copy

Shape = Tuple[int, ...]


def trial_shapes(
    name: str,
    net: nn.Module,
    size: int = 32,
    frames: int = 8,
    input_shape: Optional[Sequence[int]] = None,
) -> List[Shape]:
    """Find inputs that a network takes at full width.

    Args:
        name (str): What errors call it.
        net (nn.Module): At the widest setting, in evaluation mode; on the
            meta device nothing is computed.
        size (int): Side of a square in pixels, and twice that. If it is too
            small, twice that alone is tried, then what the network says it is
            built for (``img_size``, ``slim_side``) or was proven at (its
            ``slim_joints``), then seven and eight times, half of these,
            eight and twelve times. The second one of a pair is left out where
            the network does not run at it, as where it flattens its map.
            Defaults to 32.
        frames (int): Frames of a clip; twice as many are tried, too. Defaults
            to 8.
        input_shape (Sequence[int], optional): The one to try, in place of
            ``size`` and ``frames``. Defaults to None.

    Returns:
        list: Shapes of one size, or of two.

    Raises:
        ConfigError: If none does; names the layer that fails.
    """
    if input_shape is not None:
        return [_checked(name, net, input_shape)]
    leads, blank = leading_axes(net, frames), net
    found: Optional[Exception] = None
    declared = [(side,) for side in _declared_sides(net)]
    # Maps of one place would hide what is done between places.
    factors = ((1, 2), (2,), (7, 8), (3.5, 4), (8,), (12,))
    usual = [tuple(int(f * size) for f in pair) for pair in factors]
    for lead in leads:
        for sides in (*usual[:2], *declared, *usual[2:]):
            shapes = [(*lead, side, side) for side in sides]
            if sides not in usual[:2] and blank is net:
                # What does not run need not fill the memory with a large clip.
                blank = meta_copy(net)
            error = trial_error(blank, shapes[0])
            if error is None and blank is not net:
                error = trial_error(net, shapes[0])
            if error is None:
                return [
                    shape
                    for i, shape in enumerate(shapes)
                    if i == 0 or trial_error(net, shape) is None
                ]
            # What the input that is most likely meant fails with.
            if lead == leads[0] and sides not in usual[:2]:
                found = found or error
    assert found is not None
    *others, last = [' x '.join(map(str, (*lead, 'H', 'W'))) for lead in leads]
    shapes_tried = f'{", ".join(others)} or {last}' if others else last
    raise ConfigError(
        f'{name} does not run at full width on {size} to {12 * size} pixels, '
        f'tried with inputs of {shapes_tried}: '
        f'{failing_forward(found, net, blank)} fails with '
        f'"{first_line(found)}"'
    ) from found


def _checked(name: str, net: nn.Module, input_shape: Sequence[int]) -> Shape:
    """Return a shape, or raise ConfigError if the network does not take it."""
    try:
        shape = tuple(operator.index(size) for size in input_shape)
        if min(shape) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(
            f'input_shape={input_shape!r}: use the sizes of an input with the '
            'batch, such as (1, 3, 224, 224)'
        ) from None
    error = trial_error(net, shape)
    if error is not None:
        raise ConfigError(
            f'{name} does not take an input of input_shape={shape} at full '
            f'width: {failing_forward(error, net)} fails with '
            f'"{first_line(error)}"'
        ) from error
    return shape


def _declared_sides(net: nn.Module) -> List[int]:
    """Sides of the squares that modules are built for, or proven at."""
    sizes = [
        getattr(module, name, None)
        for module in net.modules()
        for name in ('img_size', 'slim_side')
    ]
    for module in net.modules():
        joints = getattr(module, 'slim_joints', None)
        if joints is not None:
            sizes.append(joints.input_shape[-1])
    sides = [
        size[0] if isinstance(size, (list, tuple)) and size else size
        for size in sizes
    ]
    return [*dict.fromkeys(s for s in sides if isinstance(s, int) and s > 0)]


def leading_axes(net: nn.Module, frames: int) -> List[Shape]:
    """Axes before height and width that a network may take.

    Args:
        net (nn.Module): Its first convolution tells the channels.
        frames (int): Of a clip.

    Returns:
        list: The most likely ones first.
    """
    for first in net.modules():
        if isinstance(first, (nn.Conv2d, nn.Conv3d)):
            break
    else:  # patches are cut out otherwise: images of three colours
        return [(1, 3), (1, 3, frames)]
    channels = first.in_channels
    if isinstance(first, nn.Conv3d):
        return [(1, channels, frames), (1, channels, 2 * frames)]
    # A network of 2D layers may take clips (C2D), frames as a batch (TSM), or
    # put four neighbours behind each other first (the Focus of YOLOX).
    segments = {
        getattr(module, 'num_segments', None) for module in net.modules()
    }
    return [
        (1, channels),
        (1, channels, frames),
        *((number, channels) for number in segments if number),
        *([(1, channels // 4)] if channels % 4 == 0 else []),
    ]


def trial_error(net: nn.Module, shape: Shape) -> Optional[Exception]:
    """What a network fails with on an input; None if it takes it."""
    like = next(net.parameters())
    try:
        with torch.no_grad():
            net(torch.zeros(shape, dtype=like.dtype, device=like.device))
    except Exception as error:  # whatever the backbone makes of it
        return error
    return None


def failing_forward(error: Exception, *nets: nn.Module) -> str:
    """Say in which module an error came up, for an error message."""
    name = failing_module(error, *nets)
    if not name:
        return 'its forward'
    module = nets[0].get_submodule(name)
    return f'the forward of layer "{name}" ({stock_name(module)})'


def failing_module(error: Exception, *nets: nn.Module) -> str:
    """Name the innermost module on an error's way up; empty if there is none.

    Args:
        error (Exception): As it was raised.
        nets (nn.Module): Copies of one network, one of which raised it.
    """
    names = {id(m): name for net in nets for name, m in net.named_modules()}
    place, step = '', error.__traceback__
    while step is not None:
        module = step.tb_frame.f_locals.get('self')
        place = names.get(id(module)) or place
        step = step.tb_next
    return place
