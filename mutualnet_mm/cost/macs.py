# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The cost of a subnet."""

import logging
from dataclasses import dataclass
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Optional,
    Set,
    Tuple,
    Union,
)

from mmengine.logging import print_log
from torch import nn

from ..models import MutualLearningMixin
from ..slimmable import count_module_params
from ..slimmable.macs import count_on_meta
from ..slimmable.meta import meta_copy
from ..subnet import Size, Subnet


def count_macs(
    model: MutualLearningMixin,
    subnet: Union[str, Subnet],
    image_shape: Optional[Size] = None,
) -> int:
    """Count the multiply-accumulates of ``subnet`` for one image.

    Convolutions, linear layers and global average pooling count; nothing is
    computed. Classifiers and recognizers are counted whole. For detectors,
    backbone and neck are counted at the padded input size: their heads cost
    the same at every width (:func:`count_heads`). For video, it is the cost of
    one view.

    The size is not known to the model: what a config's test pipeline delivers
    is ``find_views(cfg).shape`` of :mod:`mutualnet_mm.config`.

    Args:
        model (MutualLearningMixin): As built from a config.
        subnet (str or Subnet): Such as ``'0.7x-160'``.
        image_shape (tuple[int], optional): Height and width in pixels of the
            images, or of the views of a video, that the pipeline delivers for
            the full network. None means squares of the full resolution; for
            detectors, images of 480 x 640, COCO's most common size, with that
            short edge. Defaults to None.

    Returns:
        int: Multiply-accumulates.
    """
    macs, _ = count_forward(
        model, subnet, image_shape, model.task.forward_cost
    )
    return macs


def count_params(
    model: MutualLearningMixin, subnet: Union[str, Subnet]
) -> int:
    """Count the parameters of ``subnet``, for the whole model as deployed.

    The backbone counts as narrow as it runs; what follows it counts with the
    columns that meet the backbone's channels. Heads of detectors count whole,
    as they are at every width. Resolution and frames do not matter.

    Args:
        model (MutualLearningMixin): As built from a config.
        subnet (str or Subnet): Such as ``'0.7x-160'``.

    Returns:
        int: Parameters; at full width all of ``model.parameters()``.
    """
    subnet = model.space.check(subnet)
    net = meta_copy(model)  # another thread may be running the model
    with net.activate(subnet):
        return count_module_params(
            net,
            net.task.meta_input(net, subnet),
            forward=net.task.forward_sliced,
        )


def warn_of_equal_sizes(
    model: MutualLearningMixin,
    subnets: Iterable[Subnet],
    image_shape: Optional[Size] = None,
) -> None:
    """Log a warning if resolutions have inputs of one size, and cost the same.

    Padding does that: images of 62 and of 41 pixels both fill 64.

    Args:
        model (MutualLearningMixin): As built from a config.
        subnets (Iterable[Subnet]): Whose resolutions to compare.
        image_shape (tuple[int], optional): As for :func:`count_macs`.
            Defaults to None.
    """
    sizes: Dict[Tuple[int, ...], Set[int]] = {}
    for subnet in subnets:
        size = model.task.input_shape(model, subnet, image_shape)[-2:]
        sizes.setdefault(size, set()).add(subnet.resolution)
    for (height, width), resolutions in sizes.items():
        if len(resolutions) > 1:
            listed = ' and '.join(map(str, sorted(resolutions)))
            print_log(
                f'resolutions {listed} all have inputs of {height} x {width}, '
                'padding included: they cost the same',
                logger='current',
                level=logging.WARNING,
            )


@dataclass(frozen=True)
class HeadCost:
    """Cost of the heads that :func:`count_macs` leaves out.

    Args:
        macs (int, optional): Multiply-accumulates for one image; None if
            they depend on what is found in it (heads after proposals).
        params (int): Parameters, which ``count_params`` includes.
    """

    macs: Optional[int]
    params: int


def count_heads(
    model: MutualLearningMixin,
    subnet: Union[str, Subnet],
    image_shape: Optional[Size] = None,
) -> Optional[HeadCost]:
    """Count what follows backbone and neck, at a subnet's resolution.

    Multiply-accumulates are known if the heads run on the feature maps alone:
    those of two-stage detectors depend on the number of proposals.

    Args:
        model (MutualLearningMixin): As built from a config.
        subnet (str or Subnet): Such as ``'0.7x-160'``.
        image_shape (tuple[int], optional): As for :func:`count_macs`.

    Returns:
        HeadCost: None if :func:`count_macs` counts the heads, too.
    """
    if model.task.cost_includes_head:
        return None
    heads = nn.ModuleList(
        child
        for name, child in model.named_children()
        if name not in ('backbone', 'neck')
    )
    whole, outputs = count_forward(
        model, subnet, image_shape, model.task.forward_whole
    )
    macs = None
    if outputs is not None:  # else nothing was run
        macs = whole - count_macs(model, subnet, image_shape)
    return HeadCost(macs, sum(p.numel() for p in heads.parameters()))


def count_forward(
    model: MutualLearningMixin,
    subnet: Union[str, Subnet],
    image_shape: Optional[Size],
    forward: Callable[..., Any],
) -> Tuple[int, Any]:
    """Multiply-accumulates of ``forward``, and what it returned."""
    subnet = model.space.check(subnet)
    net = meta_copy(model)  # another thread may be running the model
    returned: List[Any] = []
    with net.activate(subnet):
        macs = count_on_meta(
            net,
            net.task.meta_input(net, subnet, image_shape),
            forward=lambda *args: returned.append(forward(*args)),
        )
    return macs, returned[0]
