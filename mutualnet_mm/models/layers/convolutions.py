# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""MMCV's convolutions that do more than the stock ones of PyTorch."""

from typing import Any, Dict, Optional

from mmcv.cnn.bricks import wrappers
from torch import Tensor

from ...slimmable import SlimConv2d, SlimLayer, register_layer, trust_forward

# MMCV's subclasses only work around PyTorch releases before 1.4.
for _wrapper in (
    wrappers.Conv2d,
    wrappers.Conv3d,
    wrappers.ConvTranspose2d,
    wrappers.ConvTranspose3d,
    wrappers.Linear,
):
    trust_forward(_wrapper)


class SlimConv2dAdaptivePadding(SlimConv2d):
    """A convolution that pads its input as TensorFlow does."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Pad and convolve ``(N, active in, H, W)``."""
        return SlimLayer.forward(self, x, *args, **kwargs)


class SlimConvWS2d(SlimConv2dAdaptivePadding):
    """A convolution whose weight is standardised, over the active inputs.

    Each row to mean 0 and deviation 1, so a batch norm cannot be folded in.
    """

    folds = False

    def blind(self, inputs: int) -> None:
        """Standardise over the active inputs alone."""
        self.blind_apart(inputs)


class SlimConvAWS2d(SlimConvWS2d):
    """The same, scaled and shifted by constants of each output channel."""

    tensor_names = ('weight', 'bias', 'weight_gamma', 'weight_beta')

    def narrowed(self, inputs: int) -> Dict[str, Optional[Tensor]]:
        """Weight, bias and the constants of the active outputs."""
        rows = self.output_ranges(inputs, self.out_channels)
        return dict(
            super().narrowed(inputs),
            weight_gamma=self.part(self.weight_gamma, rows),
            weight_beta=self.part(self.weight_beta, rows),
        )


for _name, _slim in {
    'conv2d_adaptive_padding.Conv2dAdaptivePadding': SlimConv2dAdaptivePadding,
    'conv_ws.ConvWS2d': SlimConvWS2d,
    'conv_ws.ConvAWS2d': SlimConvAWS2d,
}.items():
    register_layer(f'mmcv.cnn.bricks.{_name}', _slim)
