# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Norms of torchvision and timm, neither of which need be installed."""

from torch import Tensor

from .batch_norms import SlimBatchNorm
from .convert import register_layer
from .norms import SlimMapNorm


class SlimBatchNormAct(SlimBatchNorm):
    """A batch norm with the children ``drop`` and ``act`` behind it."""

    folds = False  # the activation would go with it

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, active channels, ...)``, drop and activate."""
        return self.act(self.drop(super().forward(x)))


register_layer('timm.layers.norm_act.BatchNormAct2d', SlimBatchNormAct)
for _stock in (
    'torchvision.models.convnext.LayerNorm2d',
    'timm.layers.norm.LayerNorm2d',
):
    register_layer(_stock, SlimMapNorm)
