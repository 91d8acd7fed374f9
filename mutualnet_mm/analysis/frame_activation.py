# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Which frames, and where in them, a video subnet looks at (Fig. 4)."""

from dataclasses import dataclass
from typing import Any, List, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..models.clips import frame_indices
from ..slimmable.convert import stock_name
from ..subnet import Subnet
from .activation_maps import check_labels
from .probe import cam_method, probed

SLOW = 0  # of the outputs of a backbone of two branches


@dataclass(frozen=True)
class FrameActivation:
    """What one subnet looks at in one clip.

    Attributes:
        subnet (Subnet): It, at its own resolution and frames.
        frames (list[int]): Of the clip, those that the subnet (its Slow
            branch) sees.
        maps (np.ndarray): (frames, h, w), Grad-CAM of the last stage, nowhere
            negative. As computed, neither normalised nor enlarged, but
            interpolated in time where the network shortens it.
        label (int): Class that speaks from it.
        score (float): The class's probability for this clip.
        predicted (int): Class that the subnet predicts.
    """

    subnet: Subnet
    frames: List[int]
    maps: np.ndarray
    label: int
    score: float
    predicted: int

    @property
    def curve(self) -> np.ndarray:
        """np.ndarray: Activation of each frame, normalised.

        The mean of its map, over that of the frame with the highest; zeros
        where nothing speaks for the class.
        """
        means = self.maps.mean((1, 2))
        return means / max(means.max(), np.finfo(np.float32).tiny)


def frame_activation(
    net: nn.Module, inputs: Tensor, label: Optional[int] = None
) -> FrameActivation:
    """Map a class in each frame of a clip.

    With global pooling and a linear classifier, as Slow and SlowFast have
    them, this is the class activation map, its negative parts set to zero,
    over the number of its points; X3D has two layers behind its pooling. Of
    SlowFast it is the Slow branch's map.

    Args:
        net (nn.Module): Static model, see :meth:`TrainedNetwork.static`.
        inputs (Tensor): One view of one video, preprocessed, at the full
            resolution and frames, (1, 1, C, T, H, W).
        label (int, optional): Class. Defaults to the predicted one.

    Raises:
        ConfigError: If the network is no 3D recognizer, or there is no such
            class.
    """
    if net.task.name != 'action':
        raise ConfigError(
            'activation of frames is for video recognizers, and this model '
            f'is for {net.task.name}'
        )
    if inputs.dim() != 6:
        raise ConfigError(
            f'{stock_name(net.backbone)} sees each frame for itself: '
            'activation of frames is for 3D networks, such as Slow'
        )
    frames = seen_frames(net, inputs.shape[-3])
    clips, _ = net.task.resize(net, inputs, [], net.subnet)
    with probed(net, SLOW) as layer, torch.enable_grad(), cam_method(
        'GradCAM'
    )(net, layer) as method:
        logits = net(clips, mode='tensor', stage='head')
        predicted = int(logits.argmax(1))
        chosen = predicted if label is None else label
        check_labels([chosen], logits.shape[1])
        (maps,) = method(chosen, logits, normalized=False)
    if maps.shape[1] != len(frames):
        size: Tuple[int, ...] = (len(frames), *maps.shape[2:])
        maps = F.interpolate(maps[None], size, mode='trilinear')[0]
    return FrameActivation(
        net.subnet,
        frames,
        maps[0].cpu().numpy(),
        chosen,
        float(logits.detach().softmax(1)[0, chosen]),
        predicted,
    )


def seen_frames(net: Any, length: int) -> List[int]:
    """Return the frames of a clip that a subnet (its Slow branch) sees.

    Args:
        net (nn.Module): Static model.
        length (int): Frames of the clip.
    """
    stride = net.backbone.frame_stride
    available = length // stride
    picked = frame_indices(available, net.subnet.frames or available)
    return [stride * i for i in picked]
