# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Video action recognition by the 2D networks of mmaction2."""

import copy
from typing import Any, Dict, Optional, Tuple

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...slimmable.convert import stock_name
from ...subnet import Size, Subnet
from ..clips import pick_frames
from ..draws import same_draws
from ..segments import follow_segments
from ..wraps import Stock, swap
from .action import ActionTask
from .samples import Samples

_OTHERS = ('torchvision', 'timm')


class SegmentsTask(ActionTask):
    """Subnets see fewer, smaller frames, one of each segment of a video.

    A 2D network runs on frames; its head (TSN, TSM, TRN), and the shifts of
    TSM, bring them together. ``t`` is the number of segments that the network
    is trained on; frames are scaled as clips are. Test pipelines may deliver
    several views, one after the other. A network that averages over any
    number of frames may also be tested on more segments than it is trained
    on, as stock TSN is. They are thinned out by the same factor, ``t`` over
    the full number.

    Inputs are ``(videos, views x segments, channels, height, width)``.
    """

    channel_axis = -3
    input_axes = {0: 'batch', 1: 'segments'}
    axes = 'batch, segments, channels, height, width'
    shaping = "FormatShape(input_format='NCHW')"

    #: Whether a view has exactly as many segments as the network.
    has_fixed_views = False

    @classmethod
    def check_model(cls, model: nn.Module) -> None:
        """Refuse backbones, heads and tests that fit no subnet.

        Raises:
            ConfigError: Names the part or the setting.
        """
        if model.backbone_from in _OTHERS:
            raise ConfigError(
                f'model.backbone is a {stock_name(model.backbone)} of '
                f'{model.backbone_from}, which cannot be slimmed: use one of '
                "mmaction2 or mmpretrain, as in type='mutualnet_mm.Slimmable',"
                " wraps='mmpretrain.ResNet'"
            )
        head = getattr(model, 'cls_head', None)
        if 'TPNHead' in [base.__name__ for base in type(head).__mro__]:
            raise ConfigError(
                'model.cls_head is a TPNHead, which pools with a kernel of '
                'the first size that it sees, so that no other resolution '
                'runs: use a TSNHead'
            )
        for name in ('fcn_test', 'max_testing_views'):
            if (model.test_cfg or {}).get(name):
                raise ConfigError(
                    f'model.test_cfg.{name} does not work for 2D recognizers: '
                    'leave it out'
                )

    def prepare(self, model: nn.Module) -> None:
        """Let the active subnet say the number of segments.

        Raises:
            ConfigError: If a part is built for another number.
        """
        stock = type(model.backbone).stock_class
        if not stock.__module__.startswith('mmaction.'):
            # Where the stock recognizer takes the map out of a tuple.
            model.backbone_from = 'mmpretrain'
        frames, state = self.space.frames or (), model.backbone.slim_state
        self.has_fixed_views = follow_segments(model, frames, state)
        if self.has_fixed_views:
            self.input_axes = {0: 'batch'}

    def downstream(self, model: nn.Module) -> Dict[str, nn.Module]:
        """The head, of what the backbone makes of one video."""
        head = copy.copy(self.head(model))
        swap(head, OneVideoMixin)
        return dict(head=head)

    def check_full(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse anything but one view: heads have one label for each."""
        super().check_full(model, inputs, data_samples)
        self._refuse(inputs, inputs.shape[1] != self.space.full.frames)

    def check_test(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse parts of a view, where the network needs whole ones."""
        super().check_full(model, inputs, data_samples)

    def _check_frames(self, model: nn.Module, inputs: Tensor) -> None:
        if self.has_fixed_views:
            self._refuse(inputs, inputs.shape[1] % self.space.full.frames)

    def _refuse(self, inputs: Tensor, is_wrong: Any) -> None:
        full = self.space.full
        if is_wrong:
            raise ConfigError(
                f'the pipeline delivers {inputs.shape[1]} frames of a video, '
                f'but the full network, {full}, takes {full.frames} at a '
                f'time: set num_clips={full.frames} of SampleFrames, or '
                'another mutual.frames[0]'
            )

    def _thin_out(self, inputs: Tensor, subnet: Subnet) -> Tensor:
        """Pick the same ones of each view, where all are alike."""
        delivered, full = inputs.shape[1], self.space.full.frames
        number = max(1, round(delivered * subnet.frames / full))
        picked = pick_frames(inputs, number, dim=1)
        # Stock recognizers view it as images; frames come in the layout that
        # they were decoded in, which stacking does not keep.
        return picked if picked is inputs else picked.contiguous()

    def input_shape(
        self, model: nn.Module, subnet: Subnet, image_shape: Optional[Size]
    ) -> Tuple[int, ...]:
        """Shape of one view, by default as the network is trained.

        Args:
            model (nn.Module): Whose task it is.
            subnet (Subnet): Names resolution and segments.
            image_shape (tuple[int], optional): Height and width, before them
                the segments that the pipeline delivers for the full network.
        """
        full = self.space.full
        size = image_shape or (full.resolution, full.resolution)
        segments = size[:-2] or (full.frames,)
        view = torch.empty(
            (1, *segments, self.input_channels(model), *size[-2:]),
            device='meta',
        )
        return tuple(self.resize(model, view, [], subnet)[0].shape)

    def shorten(self, inputs: Tensor) -> Tensor:
        """Keep one view, of as many segments as the network is trained on."""
        return inputs[:, : self.space.full.frames].contiguous()


class OneVideoMixin(Stock):
    """Lets a head take a batch of maps alone: the segments of one video."""

    prefix = 'OneVideo'

    def forward(self, maps: Any) -> Any:
        """Run the stock head.

        Args:
            maps (Tensor or tuple[Tensor]): A map of each segment.
        """
        if isinstance(maps, tuple) and len(maps) == 1:
            (maps,) = maps
        with same_draws():
            return super().forward(maps, num_segs=len(maps))
