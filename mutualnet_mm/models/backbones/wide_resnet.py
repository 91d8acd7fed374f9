# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Wide residual networks for small images (CIFAR)."""

from typing import Any, List, Optional, Sequence, Tuple

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...errors import ConfigError
from ...registry import MODELS
from .checks import check_factors, check_out_indices
from .slimmable import Slimmable


class PreActBlock(BaseModule):
    """Two 3 x 3 convolutions, each after batch norm and ReLU.

    Where the shape changes, the shortcut is a 1 x 1 convolution of the
    activated input.

    Args:
        in_channels (int): Input channels.
        out_channels (int): Output channels.
        stride (int): Stride of the first convolution. Defaults to 1.
        drop_rate (float): Dropout between the convolutions. Defaults to 0.
        norm_cfg (dict): Defaults to ``dict(type='BN')``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        drop_rate: float = 0.0,
        norm_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__()
        norm_cfg = norm_cfg or dict(type='BN')
        self.bn1 = build_norm_layer(norm_cfg, in_channels)[1]
        self.conv1 = _conv(in_channels, out_channels, 3, stride)
        self.bn2 = build_norm_layer(norm_cfg, out_channels)[1]
        self.dropout = nn.Dropout(drop_rate)
        self.conv2 = _conv(out_channels, out_channels, 3)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = _conv(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H / stride, W / stride)``."""
        out = self.relu(self.bn1(x))
        identity = x if self.shortcut is None else self.shortcut(out)
        out = self.dropout(self.relu(self.bn2(self.conv1(out))))
        return self.conv2(out) + identity


@MODELS.register_module()
class WideResNet(BaseModule):
    """Wide ResNet (Zagoruyko & Komodakis, 2016), ``WRN-depth-widen_factor``.

    A 3 x 3 stem, three groups of pre-activation blocks with 16, 32 and 64
    channels times ``widen_factor`` and strides 1, 2, 2, a last batch norm and
    ReLU. Written in the manner of mmpretrain, which has none.

    Args:
        depth (int): Convolutions along the way: ``6 n + 4`` for ``n`` blocks
            a group. Defaults to 28.
        widen_factor (float): Multiplies the channels of the groups.
            Defaults to 10.
        stem_channels (int): Defaults to 16, whatever the groups have.
        in_channels (int): Channels of the image. Defaults to 3.
        drop_rate (float): Dropout inside of the blocks. Defaults to 0.
        out_indices (Sequence[int]): Groups to return, of 0, 1, 2; the last
            one's map is normalised and activated. Defaults to ``(2,)``.
        norm_cfg (dict): Defaults to ``dict(type='BN')``.
        init_cfg (dict or list[dict], optional): Defaults to Kaiming
            convolutions by fan-out, as published.

    Raises:
        ConfigError: If ``depth`` is not ``6 n + 4``, or if another value is
            out of range.
    """

    def __init__(
        self,
        depth: int = 28,
        widen_factor: float = 10,
        stem_channels: int = 16,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        out_indices: Sequence[int] = (2,),
        norm_cfg: Optional[dict] = None,
        init_cfg: Any = None,
    ) -> None:
        init_cfg = init_cfg or [
            dict(type='Kaiming', layer=['Conv2d']),
            dict(type='Constant', val=1, layer=['_BatchNorm']),
        ]
        super().__init__(init_cfg)
        number, rest = divmod(depth - 4, 6)
        if rest or number < 1:
            raise ConfigError(
                f'WideResNet(depth={depth}): use 6 n + 4, as 10, 16, 28 or 40'
            )
        check_factors(
            'WideResNet',
            widen_factor=widen_factor,
            stem_channels=stem_channels,
        )
        check_out_indices('WideResNet', out_indices, 3)
        if widen_factor < 1 / 16:
            raise ConfigError(
                f'WideResNet(widen_factor={widen_factor!r}): the first group '
                'has no channel below 1/16'
            )
        norm_cfg = norm_cfg or dict(type='BN')
        self.out_indices = tuple(out_indices)
        self.conv1 = _conv(in_channels, stem_channels, 3)
        channels = stem_channels
        for group, stride in enumerate((1, 2, 2), 1):
            blocks: List[nn.Module] = []
            width = int(16 * 2 ** (group - 1) * widen_factor)
            for step in (stride, *[1] * (number - 1)):
                blocks.append(
                    PreActBlock(channels, width, step, drop_rate, norm_cfg)
                )
                channels = width
            self.add_module(f'layer{group}', nn.Sequential(*blocks))
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Map images ``(N, 3, H, W)`` to the chosen groups' maps."""
        x = self.conv1(x)
        outputs = []
        for i in range(3):
            x = getattr(self, f'layer{i + 1}')(x)
            if i in self.out_indices:
                outputs.append(self.relu(self.norm(x)) if i == 2 else x)
        return tuple(outputs)


@MODELS.register_module()
def SlimmableWideResNet(**kwargs: Any) -> nn.Module:
    """:class:`WideResNet`, slimmable; WRN-28-10 by default.

    For widths above 1 build all of it at the largest, the stem too:
    ``widen_factor=20, stem_channels=32, max_width=2.0``.
    """
    return Slimmable(wraps=WideResNet, **kwargs)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> Any:
    return build_conv_layer(
        None,
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=kernel // 2,
        bias=False,
    )
