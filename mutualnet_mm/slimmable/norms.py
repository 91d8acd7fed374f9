# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Norms without statistics, and other layers of one number per channel.

Unlike batch norm they need no calibration. What a norm pools over channels is
pooled over the active ones alone.
"""

from typing import Any, Dict, Mapping, Optional, Tuple

from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from .channels import Ranges
from .slim_layer import (
    SlimLayer,
    check_groups,
)


class PerChannel(SlimLayer):
    """Layers that hold vectors along the channels of their input.

    Those of :attr:`~.slim_layer.SlimLayer.tensor_names`; one that is missing,
    or is a single number, stays as it is.
    """

    @property
    def follows(self) -> bool:
        """bool: Always, see :attr:`SlimLayer.follows`."""
        return True

    def narrowed(self, inputs: int) -> Dict[str, Optional[Tensor]]:
        """The active part of each vector."""
        columns = self.columns(inputs)
        vectors = {name: getattr(self, name) for name in self.tensor_names}
        return {
            name: vector
            if vector is None or vector.numel() == 1
            else self.part(vector, columns)
            for name, vector in vectors.items()
        }


class SlimGroupNorm(PerChannel, nn.GroupNorm):
    """``nn.GroupNorm`` over the channels that come in, in whole groups.

    What comes before keeps whole groups. A single group of all channels
    narrows like layer norm.
    """

    num_groups: int

    @property
    def input_multiple(self) -> int:
        """int: Channels of a group."""
        if self.num_groups == 1:
            return 1
        return self.num_channels // self.num_groups

    def narrowed(self, inputs: int) -> Dict[str, Optional[Tensor]]:
        """Weight and bias, see :meth:`SlimLayer.narrowed`."""
        check_groups(self.columns(inputs), self.input_multiple)
        return super().narrowed(inputs)

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        del outputs
        if self.num_groups > 1:
            self.num_groups = inputs // self.input_multiple
        self.num_channels = inputs

    def blind(self, inputs: int) -> None:
        """Pool over the active channels alone."""
        if self.num_groups == 1:
            self.blind_apart(inputs)


class OverChannels(PerChannel):
    """Norms that pool over the channels: over the active ones alone."""

    def blind(self, inputs: int) -> None:
        """See :meth:`SlimLayer.blind`."""
        self.blind_apart(inputs)


class SlimLayerNorm(OverChannels, nn.LayerNorm):
    """``nn.LayerNorm`` over the channels that come in.

    On the last axis, or before axes of size one.
    """

    normalized_shape: Tuple[int, ...]

    @classmethod
    def refusal(cls, layer: Any) -> str:
        """Refuse norms over more than the channels."""
        if all(size == 1 for size in layer.normalized_shape[1:]):
            return ''
        return (
            f'normalises over {tuple(layer.normalized_shape)}, of which it '
            'has a weight each: only a norm over one axis, the channels, '
            'follows a width'
        )

    def axis(self, args: Tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
        """See :meth:`SlimLayer.axis`."""
        del args, kwargs
        return -len(self.normalized_shape)

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        del outputs
        self.normalized_shape = (inputs, *self.normalized_shape[1:])


class SlimMapNorm(OverChannels):
    """Layer norms over the channels of maps, ``(N, C, H, W)``."""

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        del outputs
        self.normalized_shape = (inputs,)


class _SlimInstanceNorm(PerChannel):
    """Instance norm: each channel of each image for itself."""

    num_features: int

    @classmethod
    def refusal(cls, layer: Any) -> str:
        """Refuse running statistics, which are the full network's."""
        if not layer.track_running_stats:
            return ''
        return (
            'tracks running statistics, which fit no narrower network: leave '
            'out track_running_stats'
        )

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        del outputs
        self.num_features = inputs


# ``_InstanceNorm`` is named again as a direct base since mmengine's
# ``init_cfg`` looks at direct bases only.
class SlimInstanceNorm1d(_SlimInstanceNorm, nn.InstanceNorm1d, _InstanceNorm):
    """``nn.InstanceNorm1d`` over the channels that come in."""


class SlimInstanceNorm2d(_SlimInstanceNorm, nn.InstanceNorm2d, _InstanceNorm):
    """``nn.InstanceNorm2d`` over the channels that come in."""


class SlimInstanceNorm3d(_SlimInstanceNorm, nn.InstanceNorm3d, _InstanceNorm):
    """``nn.InstanceNorm3d`` over the channels that come in."""


class SlimPReLU(PerChannel, nn.PReLU):
    """``nn.PReLU`` with one slope, or one for each channel that comes in."""

    tensor_names = ('weight',)
    num_parameters: int

    @property
    def built_inputs(self) -> Optional[int]:
        """int: See :attr:`SlimLayer.built_inputs`; None of one slope."""
        return self.num_parameters if self.num_parameters > 1 else None

    def columns(self, inputs: int) -> Ranges:
        """See :meth:`SlimLayer.columns`; one slope takes any channels."""
        if self.num_parameters == 1:
            return ((0, inputs),)
        return super().columns(inputs)

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        del outputs
        if self.num_parameters > 1:
            self.num_parameters = inputs
