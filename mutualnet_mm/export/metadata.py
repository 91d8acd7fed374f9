# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What one needs to know to feed a program, given only its file."""

from typing import Any, Dict

from ..deploy.adaptive_model import AdaptiveModel
from ..subnet import Subnet
from ..version import __version__


def program_metadata(net: AdaptiveModel, subnet: Subnet) -> Dict[str, Any]:
    """Describe a subnet and its inputs.

    Args:
        net (AdaptiveModel): Network that it comes from.
        subnet (Subnet): Which one.

    Returns:
        dict: Text, numbers and lists: ``subnet``, ``task``,
        ``full_resolution`` (from which inputs are resized, bilinear and
        anti-aliased) and, for video, ``full_frames``; ``mean`` and ``std`` of
        pixel values from 0 to 255, empty where nothing is normalised;
        ``channel_order``; ``classes``, empty where their names are not known;
        for a detector, ``pad_size_divisor`` and ``pad_value``.
    """
    model, full = net.model, net.model.space.full
    preprocessor = model.data_preprocessor
    found = dict(
        mutualnet_mm=__version__,
        subnet=str(subnet),
        task=model.task.name,
        full_resolution=full.resolution,
        mean=_numbers(preprocessor, 'mean'),
        std=_numbers(preprocessor, 'std'),
        channel_order=_channel_order(net),
        classes=list(net.file.dataset_meta.get('classes', [])),
    )
    if full.frames is not None:
        found.update(full_frames=full.frames)
    found.update(model.task.describe_inputs(model))
    return found


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
