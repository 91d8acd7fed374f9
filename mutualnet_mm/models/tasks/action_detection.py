# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Detection of actions (AVA): mmdet's Fast R-CNN over clips of mmaction2."""

import copy
from typing import Any, Dict, Optional, Tuple

import torch
from mmaction.models.roi_heads import AVARoIHead
from torch import Tensor, nn

from ...errors import ConfigError
from ...slimmable.convert import stock_name
from ...subnet import Size, Subnet
from ..clips import scaled_size
from ..wraps import Stock, swap
from .action import ActionTask
from .base import Task
from .samples import Batch, Samples


class ActionDetectionTask(ActionTask):
    """Subnets learn what persons do, on fewer, smaller frames.

    Resolution ``r`` is the side of the square training clips, ``t`` the
    frames of the network, as for :class:`~.action.ActionTask`; test clips may
    have any size and are scaled by the same factor. So are the given boxes of
    persons, and those of the ground truth.

    Inputs are ``(clips, channels, time, height, width)``. Where a backbone
    has two branches, the maps of both are brought to the size of the Slow
    one's by the stock head, which the boxes therefore follow.
    """

    name = 'action detection'
    cost_includes_head = False
    predicts_one_by_one = True
    input_axes = {0: 'batch', 3: 'height', 4: 'width'}
    axes = 'batch, channels, time, height, width'
    shaping = "FormatShape(input_format='NCTHW', collapse=True)"

    @classmethod
    def check_model(cls, model: nn.Module) -> None:
        """Refuse heads that do not run on the maps of the backbone alone.

        Raises:
            ConfigError: Names the head.
        """
        head = getattr(model, 'roi_head', None)
        if not isinstance(head, AVARoIHead) or model.with_neck:
            raise ConfigError(
                f'{stock_name(model)} over clips '
                f'({stock_name(model.backbone)}) needs an AVARoIHead and no '
                'neck: use those, a detector of images, or a Recognizer3D for '
                'whole clips'
            )
        if head.with_shared_head or head.bbox_roi_extractor.with_global:
            raise ConfigError(
                'model.roi_head takes the whole image beside the box of a '
                'person (shared_head, or with_global=True of '
                'bbox_roi_extractor), which cannot be slimmed: leave it out'
            )

    def supervisions(self, model: nn.Module) -> Tuple[str, ...]:
        """The ground truth: a person does several things at a time."""
        del model
        return ('label',)

    def downstream(self, model: nn.Module) -> Dict[str, nn.Module]:
        """The head, at the place of one person."""
        head = copy.copy(model.roi_head)
        swap(head, OnePersonMixin)
        return dict(roi_head=head)

    def check_truth(self, model: nn.Module, data_samples: Samples) -> None:
        """Refuse a training batch without boxes."""
        del model
        for name in ('gt_instances', 'proposals'):
            if not data_samples or any(name not in s for s in data_samples):
                raise ConfigError(
                    f'a training batch has no boxes ({name}): the data set '
                    'needs a proposal_file, and the pipeline PackActionInputs'
                )

    def resize(
        self,
        model: nn.Module,
        inputs: Tensor,
        data_samples: Samples,
        subnet: Subnet,
        with_truth: bool = False,
    ) -> Batch:
        """Return clips and boxes at the subnet's resolution and frames."""
        resized, samples = super().resize(
            model, inputs, data_samples, subnet, with_truth
        )
        scale = subnet.resolution / self.space.full.resolution
        if scale != 1:
            height, width = inputs.shape[-2:]
            new_height, new_width = scaled_size(inputs, scale)
            factor = new_width / width, new_height / height
            for sample in samples:
                _rescale(sample, factor, with_truth)
        return resized, samples

    def forward_batch_norms(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Run the backbone: there are none behind it."""
        Task.forward_batch_norms(self, model, inputs, data_samples)

    def forward_cost(self, model: nn.Module, inputs: Tensor) -> Any:
        """Backbone: the head costs the same for each person."""
        return model.extract_feat(inputs)

    def forward_sliced(self, model: nn.Module, inputs: Tensor) -> Any:
        """Backbone, and the classifier of a person."""
        maps = model.extract_feat(inputs)
        return maps, _scores(model.roi_head, maps)

    def forward_whole(self, model: nn.Module, inputs: Tensor) -> None:
        """Run nothing: how many persons there are, no one knows."""
        del model, inputs

    def input_shape(
        self, model: nn.Module, subnet: Subnet, image_shape: Optional[Size]
    ) -> Tuple[int, ...]:
        """Shape of one clip, by default of the full resolution."""
        full = self.space.full.resolution
        channels, frames = self.input_channels(model), self.clip_length(model)
        clip = torch.empty(
            (1, channels, frames, *(image_shape or (full, full))),
            device='meta',
        )
        return tuple(self.resize(model, clip, [], subnet)[0].shape)

    def shorten(self, inputs: Tensor) -> Tensor:
        """Keep all: there are no views."""
        return inputs


class OnePersonMixin(Stock):
    """Lets a head take a batch of maps alone."""

    prefix = 'OnePerson'

    def forward(self, maps: Any) -> Tensor:
        """Return the scores of a person as large as the first clip.

        Args:
            maps (Tensor or tuple[Tensor]): Of one branch, or of two.
        """
        return _scores(self, maps)


def _scores(roi_head: nn.Module, maps: Any) -> Tensor:
    """Run the head without the operator that needs boxes of real numbers.

    Maps of two branches are put together as the stock extractor does.
    """
    maps = maps if isinstance(maps, tuple) else (maps,)
    pooled = [x[:1].mean((2, 3, 4), keepdim=True) for x in maps]
    return roi_head.bbox_head(torch.cat(pooled, dim=1))


def _rescale(
    sample: Any, factor: Tuple[float, float], with_truth: bool
) -> None:
    """Bring the boxes of a pass's own sample to another size."""
    names = ['proposals', 'gt_instances'] if with_truth else ['proposals']
    for name in names:
        if name in sample:
            instances = copy.copy(sample.get(name))
            boxes = instances.bboxes
            instances.bboxes = boxes * boxes.new_tensor(factor * 2)
            setattr(sample, name, instances)
    height, width = sample.img_shape[:2]
    shape = (height * factor[1], width * factor[0])
    sample.set_metainfo(dict(img_shape=shape))
