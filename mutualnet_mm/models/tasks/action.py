# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Video action recognition with mmaction2."""

from typing import Any, Dict, Optional, Tuple

import torch
from mmaction.models import CrossEntropyLoss
from torch import Tensor, nn

from ...datasets.transforms import CARRIED
from ...errors import ConfigError
from ...subnet import Size, Subnet
from ..clips import pick_frames, resize_space, scaled_size
from .base import Task
from .samples import Batch, Samples, own_samples, predicted_scores


class ActionTask(Task):
    """Subnets match the full network's prediction on fewer, smaller frames.

    The full resolution is a side of the training clips, ``t`` the frames of
    the network (of the Slow branch, where there are two). Clips and views of
    any size are scaled by the same factor, ``r`` over the full resolution.

    Inputs are ``(clips, views, channels, time, height, width)``. A backbone
    of two branches takes them as they are and reduces its own Slow input.
    """

    name = 'action'
    takes_frames = True
    channel_axis = -4
    input_axes = {0: 'batch', 1: 'views'}
    #: Axes of the inputs, and the step that makes them.
    axes = 'batch, views, channels, time, height, width'
    shaping = "FormatShape(input_format='NCTHW')"

    def supervisions(self, model: nn.Module) -> Tuple[str, ...]:
        """Labels only where classes are not exclusive: KL has no meaning.

        Raises:
            ConfigError: If the recognizer has no head, or a neck.
        """
        if not model.with_cls_head:
            raise ConfigError(
                'model.cls_head is missing: nothing can be learned'
            )
        if model.with_neck:
            raise ConfigError(
                f'model.neck is a {type(model.neck).__name__}: recognizers '
                'with a neck cannot be trained by mutual learning, leave it '
                'out'
            )
        head = self.head(model)
        exclusive = isinstance(head.loss_cls, CrossEntropyLoss)
        if exclusive and not head.multi_class:
            return ('kl', 'label')
        return ('label',)

    def head(self, model: nn.Module) -> nn.Module:
        """Return the module whose output is the prediction for KL."""
        return model.cls_head

    def downstream(self, model: nn.Module) -> Dict[str, nn.Module]:
        """The head."""
        return dict(head=self.head(model))

    def check_channels(self, model: nn.Module, inputs: Tensor) -> None:
        """Refuse a batch of another form, or of other channels."""
        number = len(self.axes.split(', '))
        if inputs.dim() != number:
            raise ConfigError(
                f'the pipeline delivers inputs of shape {tuple(inputs.shape)}'
                f', but ({self.axes}) are needed: use {self.shaping}'
            )
        super().check_channels(model, inputs)

    def check_full(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse clips of another number of frames."""
        if data_samples and CARRIED in data_samples[0]:
            raise ConfigError(
                'MultiResolution makes sizes of images, not of clips: leave '
                'it out, clips are resized after the pipeline'
            )
        self.check_channels(model, inputs)
        self._check_frames(model, inputs)

    def _check_frames(self, model: nn.Module, inputs: Tensor) -> None:
        length = self.clip_length(model)
        if inputs.shape[-3] != length:
            raise ConfigError(
                f'the pipeline delivers clips of {inputs.shape[-3]} frames, '
                f'but the full network, {self.space.full}, takes {length}: '
                f'set clip_len={length} of the step that samples them, or '
                'another mutual.frames[0]'
            )

    def clip_length(self, model: nn.Module) -> int:
        """Frames of a clip that the pipeline delivers."""
        return self.space.full.frames * model.backbone.frame_stride

    def resize(
        self,
        model: nn.Module,
        inputs: Tensor,
        data_samples: Samples,
        subnet: Subnet,
        with_truth: bool = False,
    ) -> Batch:
        """Return the batch at the subnet's resolution and frames."""
        if model.backbone.resizes_inside:
            return inputs, own_samples(data_samples, with_truth)
        clips = self._thin_out(inputs, subnet)
        return super().resize(model, clips, data_samples, subnet, with_truth)

    def _thin_out(self, inputs: Tensor, subnet: Subnet) -> Tensor:
        return pick_frames(inputs, subnet.frames)

    def interpolate(
        self,
        model: nn.Module,
        inputs: Tensor,
        data_samples: Samples,
        resolution: int,
        with_truth: bool,
    ) -> Batch:
        """Return clips scaled in space; labels hold at any size."""
        del model, with_truth
        size = scaled_size(inputs, resolution / self.space.full.resolution)
        return resize_space(inputs, size), list(data_samples)

    def forward_batch_norms(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Run backbone and head."""
        del data_samples
        with torch.no_grad():
            self.forward_cost(model, inputs)

    def forward_cost(self, model: nn.Module, inputs: Tensor) -> Any:
        """Run the whole network, which stock recognizers do not by default."""
        return model(inputs, mode='tensor', stage='head')

    def probabilities(
        self, model: nn.Module, data_samples: Samples
    ) -> Optional[Tensor]:
        """Of a video, over whose clips and views the stock head averages."""
        if 'kl' not in self.supervisions(model):  # nor has it such a head
            return None
        averaged = self.head(model).average_clips
        if averaged is None:
            return None
        scores = predicted_scores(data_samples)
        if scores is None or averaged == 'prob':
            return scores
        return scores.softmax(dim=1)  # averaged before the softmax

    def input_shape(
        self, model: nn.Module, subnet: Subnet, image_shape: Optional[Size]
    ) -> Tuple[int, ...]:
        """Shape of one view, by default of the full resolution."""
        full = self.space.full.resolution
        view = torch.empty(
            (
                1,
                1,
                self.input_channels(model),
                self.clip_length(model),
                *(image_shape or (full, full)),
            ),
            device='meta',
        )
        return tuple(self.resize(model, view, [], subnet)[0].shape)

    def shorten(self, inputs: Tensor) -> Tensor:
        """Keep two views: they are independent, and there may be dozens."""
        # Contiguous, since stock recognizers view the result in another shape.
        return inputs[:, :2].contiguous()
