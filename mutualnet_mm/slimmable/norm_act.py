# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Batch norms that drop and activate what they have normalised, as timm's."""

from torch import Tensor

from .convert import register_layer
from .layers import SlimBatchNorm


class SlimBatchNormAct(SlimBatchNorm):
    """A batch norm with the children ``drop`` and ``act`` behind it."""

    folds = False  # the activation would go with it

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, active channels, ...)``, drop and activate."""
        return self.act(self.drop(super().forward(x)))


register_layer('timm.layers.norm_act.BatchNormAct2d', SlimBatchNormAct)
