# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The maps of a detector's subnets beside those of the full network.

Subnets see smaller images than the full network, so maps of one level show
other things: what is found at stride 16 in an image is found at stride 8 in
the same one of half the size. As in MSAD, levels are compared that have about
as many places for an image; as in PKD, by their correlation
(:func:`~.losses.correlation_distance`).
"""

from dataclasses import dataclass
from math import log2
from typing import Any, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..errors import ConfigError
from ..slimmable.convert import stock_name
from ..slimmable.macs import skip_free_layers
from ..slimmable.meta import run_on_meta
from ..subnet import Size, Subnet
from .draws import same_draws
from .interpolation import scaled
from .losses import correlation_distance
from .predictions import outputs_of

_REMEDY = 'leave mutual.distill out'


@dataclass
class FeatureMaps:
    """The maps that a network makes of a batch, and where its images lie.

    Attributes:
        levels (list[Tensor]): ``(N, C, height, width)`` each.
        batch (tuple[int]): Height and width of the batch, in pixels.
        images (list[tuple[int]]): Those of each image in its upper left
            corner, without padding.
    """

    levels: List[Tensor]
    batch: Size
    images: List[Size]

    def detached(self) -> 'FeatureMaps':
        """The same maps without their graphs, to learn from."""
        levels = [level.detach() for level in self.levels]
        return FeatureMaps(levels, self.batch, self.images)

    def distance(self, aim: 'FeatureMaps') -> Tensor:
        """Sum of the distances of all levels that have a counterpart.

        Args:
            aim (FeatureMaps): Of the full network, for the same images. They
                are sampled where the places of the own maps lie in an image.

        Raises:
            ConfigError: If there are maps of other channels.
        """
        total = self.levels[0].new_zeros(())
        for i, j, ratio in self.counterparts(aim):
            own, other = self.levels[i], aim.levels[j]
            steps = [
                [ratio * there / here for here, there in zip(*sides)]
                for sides in zip(self.images, aim.images)
            ]
            target = _sampled(other, own.shape[-2:], steps)
            total = total + correlation_distance(own, target)
        return total

    def counterparts(self, aim: 'FeatureMaps') -> List[Tuple[int, int, float]]:
        """Levels that have about as many places for an image.

        One without a counterpart within the root of 2, along a side, is left
        out: other objects are found there. A single level has itself.

        Args:
            aim (FeatureMaps): Of the full network.

        Returns:
            list[tuple]: Number of the own level, that of ``aim``, and the own
            stride over the other one.

        Raises:
            ConfigError: If there are maps of other channels.
        """
        channels, others = (
            [level.shape[1] for level in maps.levels] for maps in (self, aim)
        )
        if len({*channels, *others}) != 1:
            raise ConfigError(
                'mutual.distill compares maps of equal channels, but those of '
                f'a subnet have {channels}, of the full network {others}: use '
                f'a neck that makes them equal, such as FPN, or {_REMEDY}'
            )
        # Both have the same ones. Maps are rounded up, strides here down.
        strides = [*map(max, self._strides(), aim._strides())]
        sides, full = (sum(map(sum, maps.images)) for maps in (self, aim))
        found = []
        for i, stride in enumerate(strides):
            # From level to level they double, so that rounding shows.
            ratios = [2.0 ** round(log2(stride / other)) for other in strides]
            octaves = [abs(log2(r * full / sides)) for r in ratios]
            j = min(
                range(len(strides)), key=lambda j: (octaves[j], abs(i - j))
            )
            if octaves[j] <= 0.5 or len(strides) == 1:
                found.append((i, j, ratios[j]))
        return found

    def _strides(self) -> List[float]:
        """Pixels of the batch for each place, by level."""
        return [
            max(a / b for a, b in zip(self.batch, level.shape[-2:]))
            for level in self.levels
        ]


def taken_maps(
    outputs: List[Any], inputs: Tensor, data_samples: Sequence[Any]
) -> FeatureMaps:
    """Take the maps that a neck or backbone has made of a batch.

    Args:
        outputs (list): As :func:`~.predictions.outputs_of` collects them. It
            is emptied, so that no map outlives its pass by it.
        inputs (Tensor): The batch that was passed.
        data_samples (Sequence): Name the ``img_shape`` of each image.

    Raises:
        ConfigError: If there are no maps, one for each image.
    """
    last = outputs[-1] if outputs else None
    outputs.clear()
    levels = list(last) if isinstance(last, (list, tuple)) else [last]
    for level in levels:
        shape = tuple(getattr(level, 'shape', ()))
        if len(shape) != 4 or shape[0] != len(inputs):
            raise ConfigError(
                'mutual.distill compares maps, (images, channels, height, '
                f'width), but of a batch of {len(inputs)} the model makes a '
                f'{type(level).__name__} of shape {shape}: {_REMEDY}'
            )
    height, width = inputs.shape[-2:]
    images = [sample.img_shape[:2] for sample in data_samples]
    return FeatureMaps(levels, (height, width), images)


def check_maps(model: Any) -> None:
    """Refuse a model whose maps cannot be compared with the full network's.

    They are made on the meta device, where only shapes are computed. What
    does not run there is judged in the first step.

    Args:
        model (MutualLearningMixin): As built.

    Raises:
        ConfigError: Says why, and the remedy.
    """
    maker = model.task.map_maker(model)
    if maker is None:
        raise ConfigError(
            'mutual.distill compares the maps of detectors of images, and '
            f'{stock_name(model)} is none: {_REMEDY}'
        )
    space = model.space
    full = space.full.resolution
    for resolution in space.resolutions:
        size = resolution if model.sampler.shared else full
        aim = _shapes(model, maker, Subnet(space.max_width, size))
        own = _shapes(model, maker, Subnet(space.min_width, resolution))
        if aim is None or own is None:
            return
        if not own.counterparts(aim):
            raise ConfigError(
                f'mutual.distill: at resolution {resolution} no level of '
                f'{stock_name(maker)} has about as many places as one of the '
                f'full network, at {size}: leave that '
                f'resolution out, or {_REMEDY}'
            )


def _shapes(
    model: Any, maker: nn.Module, subnet: Subnet
) -> Optional[FeatureMaps]:
    """Maps of a square image, if they can be made on the meta device."""
    full, task = model.space.full.resolution, model.task
    image = full, full
    inputs = task.meta_input(model, subnet, image)
    try:
        with model.activate(subnet), skip_free_layers(
            model
        ), same_draws(), outputs_of(maker) as outputs:
            run_on_meta(model, inputs, forward=task.forward_cost)
    except Exception:  # whatever a stock forward may raise
        return None
    size = scaled(image, subnet.resolution, full)
    sample = BaseDataElement(metainfo=dict(img_shape=size))
    return taken_maps(outputs, inputs, [sample])


def _sampled(
    maps: Tensor, size: Sequence[int], steps: Sequence[Sequence[float]]
) -> Tensor:
    """Sample maps at the places of other ones, bilinearly.

    Args:
        maps (Tensor): ``(N, C, height, width)``, without a graph.
        size (Sequence[int]): Height and width of the other ones.
        steps (Sequence): Places of ``maps``, down and right, that one of
            theirs stands for; of each image. Beyond the edge is what lies
            there.
    """
    maps = maps.to(torch.promote_types(maps.dtype, torch.float))
    step = maps.new_tensor(steps)
    rows, columns = (
        (torch.arange(side).to(maps) + 0.5) * step[:, i : i + 1]
        for i, side in enumerate(size)
    )
    # From -1 to 1 along the whole map.
    y = (rows * 2 / maps.shape[-2] - 1)[:, :, None]
    x = (columns * 2 / maps.shape[-1] - 1)[:, None, :]
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=-1)
    return F.grid_sample(
        maps, grid, padding_mode='border', align_corners=False
    )
