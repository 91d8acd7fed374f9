# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""MMCV's deformable convolutions, of both versions.

The offsets are found by a convolution of fixed outputs inside of the layer,
or come from elsewhere. The operator itself is MMCV's.
"""

from typing import Any, Dict, Optional

import torch.nn.functional as F
from torch import Tensor

from ...slimmable import LayerRule, SlimLayer, register_layer
from ...slimmable.layers import _SlimConv


class SlimDeformConv2d(_SlimConv):
    """A deformable convolution at the active width."""

    inner_rules = dict(conv_offset=LayerRule(fixed=True))
    folds = False
    any_forward = False
    deform_groups: int

    @classmethod
    def refusal(cls, layer: Any) -> str:
        """Refuse groups of two kinds."""
        if 1 in (layer.groups, layer.deform_groups):
            return ''
        return (
            f'convolves in {layer.groups} groups and moves channels in '
            f'{layer.deform_groups}: only one of groups and deform_groups may '
            'be above 1'
        )

    @property
    def input_parts(self) -> int:
        """int: Groups of channels that move together; each one narrows."""
        return self.deform_groups

    def narrowed(self, inputs: int) -> Dict[str, Optional[Tensor]]:
        """Weight and bias, contiguous as the operator wants them."""
        return {
            name: part if part is None else part.contiguous()
            for name, part in super().narrowed(inputs).items()
        }

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Convolve ``(N, active in, H, W)``, as the stock layer does.

        On the meta device, which the operator does not know, an ordinary
        convolution stands in: it has the same sizes and multiply-accumulates
        (those of the bilinear sampling are never counted).
        """
        if not x.is_meta:
            return SlimLayer.forward(self, x, *args, **kwargs)
        if hasattr(self, 'conv_offset'):
            self.conv_offset(x)
        layer: Any = self if self.is_widest else self.stand_in(x.shape[1])
        return F.conv2d(
            x,
            layer.weight,
            layer.bias,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )


class SlimDeformConv2dV1(SlimDeformConv2d):
    """Version 1, which has no bias."""

    tensor_names = ('weight',)
    bias = None


for _stock, _slim in {
    'deform_conv.DeformConv2d': SlimDeformConv2dV1,
    'deform_conv.DeformConv2dPack': SlimDeformConv2dV1,
    'modulated_deform_conv.ModulatedDeformConv2d': SlimDeformConv2d,
    'modulated_deform_conv.ModulatedDeformConv2dPack': SlimDeformConv2d,
}.items():
    register_layer(f'mmcv.ops.{_stock}', _slim)
