# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Image classification with mmpretrain."""

from typing import Dict, Optional, Tuple

from torch import Tensor, nn

from ...errors import ConfigError
from ...subnet import Size, Subnet
from ..interpolation import resize_images
from .base import Task
from .samples import Batch, Samples


class ClassificationTask(Task):
    """Subnets match the full network's prediction on the image, resized.

    Resolution ``r`` is the side of the square input.
    """

    name = 'classification'

    def supervisions(self, model: nn.Module) -> Tuple[str, ...]:
        """Labels only where classes are not exclusive: KL has no meaning.

        Raises:
            ConfigError: If the classifier has no head.
        """
        head = self.head(model)
        if head is None:
            raise ConfigError('model.head is missing: nothing can be learned')
        return ('label',) if _scores_apart(head) else ('kl', 'label')

    def downstream(self, model: nn.Module) -> Dict[str, nn.Module]:
        """Neck and head."""
        return dict(super().downstream(model), head=self.head(model))

    def check_full(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse inputs that are not squares of the full resolution."""
        del model, data_samples
        self.check_square(inputs)

    def interpolate(
        self,
        model: nn.Module,
        inputs: Tensor,
        data_samples: Samples,
        resolution: int,
        with_truth: bool,
    ) -> Batch:
        """Return squares of the resolution; labels hold at any."""
        del model, with_truth
        resized = resize_images(inputs, (resolution, resolution))
        return resized, list(data_samples)

    def input_shape(
        self, model: nn.Module, subnet: Subnet, image_shape: Optional[Size]
    ) -> Tuple[int, ...]:
        """Shape of one square input; ``image_shape`` does not matter."""
        del image_shape
        channels = self.input_channels(model)
        return (1, channels, subnet.resolution, subnet.resolution)


def _scores_apart(head: nn.Module) -> bool:
    """Whether each class is decided alone, or there are several heads."""
    names = [cls.__name__ for m in head.modules() for cls in type(m).__mro__]
    return (
        any('MultiLabel' in n or 'MultiTask' in n for n in names)
        or 'FocalLoss' in names  # by sigmoids, which no attribute tells
        or any(getattr(m, 'use_sigmoid', False) for m in head.modules())
    )
