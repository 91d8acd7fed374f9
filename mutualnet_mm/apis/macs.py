# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The cost of a subnet."""

from typing import Tuple, Union

import torch

from ..models import MutualLearningMixin
from ..slimmable import count_module_macs
from ..subnet import Subnet


def count_macs(
    model: MutualLearningMixin,
    subnet: Union[str, Subnet],
    image_shape: Tuple[int, int] = (480, 640),
) -> int:
    """Count the multiply-accumulates of ``subnet`` for one image.

    Convolutions, linear layers and global average pooling count; nothing is
    computed. Classifiers are counted whole, detectors with backbone and neck
    at the padded input size: their heads cost the same at every width.

    Args:
        model (MutualLearningMixin): As built from a config.
        subnet (str or Subnet): Such as ``'0.7x-160'``.
        image_shape (tuple[int]): Height and width of the original image in
            pixels; matters to detectors only, which keep the aspect ratio.
            Defaults to (480, 640), COCO's most common size.

    Returns:
        int: Multiply-accumulates.
    """
    subnet = model.space.check(subnet)
    shape = model.task.input_shape(model, subnet, image_shape)
    with model.activate(subnet):
        return count_module_macs(
            model,
            torch.empty(shape, device='meta'),
            forward=model.task.counted,
        )
