# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""MobileNetV1, which mmpretrain does not have."""

import math
from typing import Any, List, Optional, Sequence, Tuple

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...registry import MODELS
from ...slimmable.channels import make_divisible
from .checks import check_factors, check_out_indices
from .slimmable import Slimmable

# Channels, number of blocks and stride of each stage.
_STAGES = (
    (64, 1, 1),
    (128, 2, 2),
    (256, 2, 2),
    (512, 6, 2),
    (1024, 2, 2),
)


@MODELS.register_module()
class MobileNetV1(BaseModule):
    """MobileNet (Howard et al., 2017) of depthwise separable convolutions.

    Written in the manner of mmpretrain. With ReLU6, as in the published code
    of MutualNet.

    Args:
        widen_factor (float): Multiplies the channels of every layer, rounded
            to multiples of 8. Defaults to 1.
        depth_factor (float): Multiplies the blocks of every stage, rounded
            up: EfficientNet's compound scaling. Defaults to 1.
        out_indices (Sequence[int]): Stages to return, of 0 to 4 with strides
            2 to 32. Defaults to ``(4,)``.
        norm_cfg (dict): Defaults to ``dict(type='BN')``.
        act_cfg (dict): Defaults to ``dict(type='ReLU6')``.
        init_cfg (dict or list[dict], optional): Defaults to Kaiming
            convolutions.

    Raises:
        ConfigError: If a factor is not positive or an index does not exist.
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        depth_factor: float = 1.0,
        out_indices: Sequence[int] = (4,),
        norm_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = None,
        init_cfg: Any = None,
    ) -> None:
        init_cfg = init_cfg or [
            dict(type='Kaiming', layer=['Conv2d']),
            dict(type='Constant', val=1, layer=['_BatchNorm']),
        ]
        super().__init__(init_cfg)
        check_factors(
            'MobileNetV1', widen_factor=widen_factor, depth_factor=depth_factor
        )
        check_out_indices('MobileNetV1', out_indices, len(_STAGES))
        layer = dict(
            norm_cfg=norm_cfg or dict(type='BN'),
            act_cfg=act_cfg or dict(type='ReLU6'),
        )
        self.out_indices = tuple(out_indices)
        channels = make_divisible(32 * widen_factor)
        self.conv1 = ConvModule(3, channels, 3, stride=2, padding=1, **layer)
        for i, (base, number, stride) in enumerate(_STAGES):
            width = make_divisible(base * widen_factor)
            blocks: List[nn.Module] = []
            # Less an epsilon: 1.4 * 5 is 7, not 7.000000000000001.
            for j in range(math.ceil(depth_factor * number - 1e-6)):
                blocks.append(
                    DepthwiseSeparableConvModule(
                        channels,
                        width,
                        3,
                        stride=stride if j == 0 else 1,
                        padding=1,
                        **layer,
                    )
                )
                channels = width
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Map images ``(N, 3, H, W)`` to the chosen stages' maps."""
        x = self.conv1(x)
        outputs = []
        for i in range(len(_STAGES)):
            x = getattr(self, f'layer{i + 1}')(x)
            if i in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


@MODELS.register_module()
def SlimmableMobileNetV1(**kwargs: Any) -> nn.Module:
    """:class:`MobileNetV1`, slimmable.

    For widths above 1 build it at the largest:
    ``widen_factor=2.0, max_width=2.0``.
    """
    return Slimmable(wraps=MobileNetV1, **kwargs)
