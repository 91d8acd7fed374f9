# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What one needs to know to feed a program, given only its file."""

from typing import Any, Dict, Optional

import numpy as np

from ..deploy.adaptive_model import AdaptiveModel
from ..errors import UsageError
from ..subnet import Subnet
from ..version import __version__

_BRIGHT, _OTHER = 200, (30, 120, 210)  # of 255


def program_metadata(net: AdaptiveModel, subnet: Subnet) -> Dict[str, Any]:
    """Describe a subnet and its inputs.

    Args:
        net (AdaptiveModel): Network that it comes from.
        subnet (Subnet): Which one.

    Returns:
        dict: Text, numbers and lists: ``subnet``, ``task``,
        ``full_resolution`` and, for video, ``full_frames``; ``mean`` and
        ``std`` of pixel values from 0 to 255, empty where nothing is
        normalised; ``channel_order``, which says so if colours are made
        otherwise than by these; ``classes``, empty where their names are not
        known; for a detector, ``pad_size_divisor`` and ``pad_value``.
    """
    model, full = net.model, net.model.space.full
    colours = _declared(net)
    try:
        measured = _measured(net, colours['channel_order'])
    except UsageError:  # by an image that the pipeline does not take
        measured = None
    if measured is not None and not _are_close(measured, colours):
        colours = measured
    found = dict(
        mutualnet_mm=__version__,
        subnet=str(subnet),
        task=model.task.name,
        full_resolution=full.resolution,
        **colours,
        classes=list(net.file.dataset_meta.get('classes', [])),
    )
    if full.frames is not None:
        found.update(full_frames=full.frames)
    found.update(model.task.describe_inputs(model))
    return found


def _declared(net: AdaptiveModel) -> Dict[str, Any]:
    """What the data preprocessor says of colours."""
    preprocessor = net.model.data_preprocessor
    return dict(
        mean=_numbers(preprocessor, 'mean'),
        std=_numbers(preprocessor, 'std'),
        channel_order=_channel_order(net),
    )


def _measured(net: AdaptiveModel, declared: str) -> Optional[Dict[str, Any]]:
    """What pipeline and preprocessor make of images of one colour.

    A pipeline may normalise, or reverse colours, by steps of its own.

    Args:
        net (AdaptiveModel): Of images of three channels; None is measured of
            others, and where the data set has no files.
        declared (str): The channel order that the preprocessor says.
    """
    order = net.inputs.channel_order
    if order not in ('BGR', 'RGB') or net.model.space.full.frames is not None:
        return None

    side = max(64, net.model.space.full.resolution)

    def pixel(*colour: int) -> np.ndarray:
        """What the network gets of the middle of an image."""
        image = np.full((side, side, 3), colour, np.uint8)
        inputs, samples = net.prepare([image])
        # Without what is padded, on the right and below.
        size = inputs.shape[-2:]
        shape = samples[0].get('img_shape') or size
        y, x = (min(pair) // 2 for pair in zip(shape, size))
        middle = inputs[0, :, y, x]
        return middle.double().cpu().numpy()

    black = pixel(0, 0, 0)
    bright = np.eye(3, dtype=int) * _BRIGHT
    slopes = np.stack([pixel(*c) - black for c in bright]).T / _BRIGHT
    places = abs(slopes).argmax(1)  # rows are what comes out
    plain = np.zeros_like(slopes)
    plain[range(3), places] = slopes[range(3), places]
    expected = black + plain @ _OTHER
    is_each = sorted(places) == [0, 1, 2] and slopes[range(3), places].all()
    if not is_each or not np.allclose(pixel(*_OTHER), expected, atol=1e-3):
        other = f'{declared}, and more than a mean and a std for each channel'
        return dict(mean=[], std=[], channel_order=other)
    stds = 1 / slopes[range(3), places]
    means = -black * stds
    is_plain = np.allclose(stds, 1, atol=1e-4) and not means.any()
    return dict(
        mean=[] if is_plain else means.round(4).tolist(),
        std=[] if is_plain else stds.round(4).tolist(),
        channel_order=''.join(order[place] for place in places),
    )


def _are_close(a: Dict[str, Any], b: Dict[str, Any]) -> bool:
    """Whether two say the same, but for rounding."""
    return a['channel_order'] == b['channel_order'] and all(
        len(a[name]) == len(b[name]) and np.allclose(a[name], b[name], 1e-3)
        for name in ('mean', 'std')
    )


def _numbers(preprocessor: Any, name: str) -> list:
    buffer = getattr(preprocessor, name, None)
    return [] if buffer is None else buffer.flatten().tolist()


def _channel_order(net: AdaptiveModel) -> str:
    """Order in which the network takes colours."""
    order = net.inputs.channel_order
    preprocessor = net.model.data_preprocessor
    # mmaction2 and mmpretrain say it one way, mmdet the other.
    swaps = getattr(preprocessor, 'to_rgb', False) or getattr(
        preprocessor, '_channel_conversion', False
    )
    if net.model.task.input_channels(net.model) == 1:
        return 'grey'
    if order is None:
        return f"{'reverse of ' if swaps else ''}the data set's arrays"
    return order[::-1] if swaps else order
