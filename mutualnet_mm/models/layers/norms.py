# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Norms over channels of mmpretrain and mmdet."""

from typing import Any, Mapping, Tuple

from ...slimmable import register_layer
from ...slimmable.norms import OverChannels


def _axis(data_format: str) -> int:
    """Axis that a data format puts the channels on."""
    # mmpretrain says both "channel_last" and "channels_last".
    return -1 if data_format.endswith('last') else 1


class _OfEitherFormat(OverChannels):
    """Norms that are told the data format of each map."""

    def axis(self, args: Tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
        """See :meth:`SlimLayer.axis`."""
        given = (*args, kwargs.get('data_format', 'channel_first'))
        return _axis(given[0])


class SlimLayerNorm2d(_OfEitherFormat):
    """Layer norm over the channels, of maps of either data format."""

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        del outputs
        self.num_channels = inputs
        self.normalized_shape = (inputs,)


class SlimGRN(_OfEitherFormat):
    """Global response norm: each channel's share of the active ones."""

    tensor_names = ('gamma', 'beta')

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        del outputs
        self.in_channels = inputs


class SlimHorNetLayerNorm(OverChannels):
    """Layer norm over the channels, built for one data format."""

    data_format: str

    def axis(self, args: Tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
        """See :meth:`SlimLayer.axis`."""
        del args, kwargs
        return _axis(self.data_format)

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        del outputs
        self.normalized_shape = (inputs,)


class SlimL2Norm(OverChannels):
    """Vectors of length one at each place, of the active channels."""

    tensor_names = ('weight',)

    def set_channels(self, inputs: int, outputs: int) -> None:
        """See :meth:`SlimLayer.set_channels`."""
        del outputs
        self.n_dims = inputs


for _stock, _slim in {
    'mmpretrain.models.utils.norm.LayerNorm2d': SlimLayerNorm2d,
    'mmpretrain.models.utils.norm.GRN': SlimGRN,
    'mmpretrain.models.backbones.hornet.HorNetLayerNorm': SlimHorNetLayerNorm,
    'mmdet.models.necks.ssd_neck.L2Norm': SlimL2Norm,
}.items():
    register_layer(_stock, _slim)
