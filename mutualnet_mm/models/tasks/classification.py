# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Image classification with mmpretrain."""

from inspect import signature
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...subnet import Size, Subnet
from ..interpolation import resize_images, scaled
from .base import Task
from .samples import Batch, Samples, predicted_scores


class ClassificationTask(Task):
    """Subnets match the full network's prediction on the image, resized.

    The full resolution is a side of the input that the pipeline delivers, in
    training or in testing. A subnet of resolution ``r`` sees any input scaled
    by ``r`` over the full one: of training crops that are smaller than the
    test crops, that grow in mid-training, or that are no squares.
    """

    name = 'classification'

    def supervisions(self, model: nn.Module) -> Tuple[str, ...]:
        """Labels only where scores are no distribution: KL has no meaning.

        Labels at first where it is not known: of heads that are none of
        mmpretrain's, which may give embeddings (mmdet's for re-identification
        do).

        Raises:
            ConfigError: If the classifier has no head.
        """
        head = self.head(model)
        if head is None:
            raise ConfigError('model.head is missing: nothing can be learned')
        no_kl = _scores_apart(head) or _takes_margin(head)
        if no_kl:
            return ('label',)
        kinds = [cls.__name__ for cls in type(head).__mro__]
        return ('kl', 'label') if 'ClsHead' in kinds else ('label', 'kl')

    def downstream(self, model: nn.Module) -> Dict[str, nn.Module]:
        """Neck and head."""
        return dict(super().downstream(model), head=self.head(model))

    def _why_no_distribution(
        self, model: nn.Module, data_samples: Samples
    ) -> Optional[str]:
        """Why a batch has none, as where an image has several labels."""
        if any(_has_several(sample) for sample in data_samples):
            return 'an image of a training batch has several labels'
        return super()._why_no_distribution(model, data_samples)

    def check_test(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse inputs that are smaller than the full resolution."""
        del model, data_samples
        self.check_large(inputs)

    def interpolate(
        self,
        model: nn.Module,
        inputs: Tensor,
        data_samples: Samples,
        resolution: int,
        with_truth: bool,
    ) -> Batch:
        """Return scaled images; labels hold at any size."""
        del model, with_truth
        size = self._scaled(inputs.shape[-2:], resolution)
        return resize_images(inputs, size), list(data_samples)

    def _scaled(self, size: Sequence[int], resolution: int) -> Size:
        height, width = size
        return scaled((height, width), resolution, self.space.full.resolution)

    def forward_batch_norms(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Run backbone and neck; the head too if it has batch norms."""
        if not self.batch_norms_outside(model, ('backbone', 'neck')):
            super().forward_batch_norms(model, inputs, data_samples)
            return
        with torch.no_grad():
            self.forward_cost(model, inputs)

    def probabilities(
        self, model: nn.Module, data_samples: Samples
    ) -> Optional[Tensor]:
        """The scores, unless each class is decided alone."""
        if _scores_apart(self.head(model)):
            return None
        return predicted_scores(data_samples)

    def input_shape(
        self, model: nn.Module, subnet: Subnet, image_shape: Optional[Size]
    ) -> Tuple[int, ...]:
        """Shape of one input, by default a square."""
        full = self.space.full.resolution
        size = self._scaled(image_shape or (full, full), subnet.resolution)
        return (1, self.input_channels(model), *size)


def _has_several(sample: Any) -> bool:
    """Whether a sample has several labels."""
    label = sample.get('gt_label')
    return isinstance(label, Tensor) and label.numel() > 1


def _scores_apart(head: nn.Module) -> bool:
    """Whether each class is decided alone, or there are several heads."""
    names = [cls.__name__ for m in head.modules() for cls in type(m).__mro__]
    return (
        any('MultiLabel' in n or 'MultiTask' in n for n in names)
        or 'FocalLoss' in names  # by sigmoids, which no attribute tells
        or any(getattr(m, 'use_sigmoid', False) for m in head.modules())
    )


def _takes_margin(head: nn.Module) -> bool:
    """Whether training shifts the score of the true class, as of ArcFace.

    Its loss then shows other scores than predictions.
    """
    return 'target' in signature(head.forward).parameters
