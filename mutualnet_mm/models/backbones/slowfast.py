# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""SlowFast with adaptive fusion (Sec. 4.2.2, Fig. 6)."""

from typing import Any, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry import MODELS
from ...slimmable import LayerRule
from ..clips import pick_frames, resize_space, scaled_size
from .resnet import resnet_rules
from .slimmable import Rules, Slimmable, SlimmableMixin, family


class TwoBranchMixin(SlimmableMixin):
    """Makes the Slow branch adaptive in width, resolution and frames.

    The whole clip goes in at every subnet. The Fast branch always runs at
    full width, resolution and frame rate; what it hands over to the Slow
    branch is brought to the Slow branch's current size.
    """

    resizes_inside = True

    @property
    def frame_stride(self) -> int:
        """int: Frames of a clip for each one that the Slow branch sees."""
        return self.resample_rate

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the features of both branches, slow and fast.

        Args:
            x (Tensor): Whole clips, ``(batch, channels, time, height,
                width)``.
        """
        state, all_frames = self.slim_state, x.shape[2] // self.resample_rate
        if state.scale == 1 and (state.frames or all_frames) == all_frames:
            # Whole clips: the layers see to the width, the rest is stock.
            return super().forward(x)
        slow, fast = self.slow_path, self.fast_path
        x_slow = self.slow_inputs(x)
        x_slow = slow.maxpool(slow.conv1(x_slow))
        x_fast = _every(x, self.resample_rate // self.speed_ratio)
        x_fast = fast.maxpool(fast.conv1(x_fast))
        laterals = ['conv1_lateral', *slow.lateral_connections]
        for i, layer in enumerate(slow.res_layers):
            if slow.lateral:
                x_slow = fuse(x_slow, getattr(slow, laterals[i])(x_fast))
            x_slow = getattr(slow, layer)(x_slow)
            x_fast = getattr(fast, layer)(x_fast)
        return x_slow, x_fast

    def slow_inputs(self, x: Tensor) -> Tensor:
        """Return what the Slow branch sees of clips at the active subnet.

        Args:
            x (Tensor): As for :meth:`forward`.
        """
        state = self.slim_state
        clips = pick_frames(_every(x, self.resample_rate), state.frames)
        return resize_space(clips, scaled_size(clips, state.scale))


def _every(clips: Tensor, stride: int) -> Tensor:
    """Take every ``stride``-th frame, as the stock forward does."""
    return F.interpolate(
        clips, mode='nearest', scale_factor=(1.0 / stride, 1.0, 1.0)
    )


def fuse(slow: Tensor, lateral: Tensor) -> Tensor:
    """Concatenate the Fast branch's output after ``slow``.

    Args:
        slow (Tensor): ``{gt T, gs S, gw C}``: frames, space and channels of
            the active subnet.
        lateral (Tensor): ``{T, S, 2bC}``, of the full size. The same frames
            are picked of it as of the Slow branch's input, and it is
            interpolated in space.

    Returns:
        Tensor: ``{gt T, gs S, gw C + 2bC}``.
    """
    lateral = pick_frames(lateral, slow.shape[2])
    lateral = resize_space(lateral, slow.shape[-2:])
    return torch.cat((slow, lateral), dim=1)


@family('ResNet3dSlowFast', mixin=TwoBranchMixin)
def slowfast_rules(backbone: nn.Module) -> Rules:
    """Slim the Slow branch alone, as a ResNet.

    The Fast branch and the lateral convolutions are fixed, so that the
    convolutions that take a fused input see all of the lateral channels.
    """
    slow = backbone.slow_path
    rules = {f'slow_path.{n}': r for n, r in resnet_rules(slow).items()}
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Conv3d) and (
            name.startswith('fast_path.') or '_lateral.' in name
        ):
            rules[name] = LayerRule(fixed=True)
    return rules


@MODELS.register_module()
def SlimmableResNet3dSlowFast(**kwargs: Any) -> nn.Module:
    """mmaction2's ``ResNet3dSlowFast`` with an adaptive Slow branch."""
    return Slimmable(wraps='mmaction.ResNet3dSlowFast', **kwargs)
