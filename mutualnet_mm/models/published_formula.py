# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The networks of the published code, computed from their own tensors.

The shapes of weights show neither activations nor strides, and not how a
width is rounded. So what a config builds is compared with what is computed
here, layer by layer, before published weights are given to it.
"""

from typing import Dict, Mapping

import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-5  # of PyTorch's batch norm, which the published code does not set
# Channels and stride of each block; the middle stage has six.
_V1 = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *[(512, 1)] * 5,
    *((1024, 2), (1024, 1)),
)
# Expansion, channels, blocks and stride of each stage.
_V2 = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


def published_channels(base: float, width: float, ratio: float = 1.0) -> int:
    """Channels that the published code keeps of a layer, with divisor 8.

    Args:
        base (float): Channels at width 1.
        width (float): Active width.
        ratio (float): What it calls so: 6 for the hidden layers of
            MobileNetV2, 1/4 for the inner ones of bottlenecks. Defaults to 1.
    """
    wanted = base * width / ratio
    rounded = max(1, int(wanted + 4) // 8 * 8)
    if rounded < 0.9 * wanted:
        rounded += 8
    return int(rounded * ratio)


class PublishedNetwork:
    """A network of the published code at one width.

    Batch norms take the statistics of the batch, as in training: what is
    computed depends on the weights alone.

    Args:
        weights (Mapping): Tensors by the published names, without
            ``module.``.
        width (float): Active width.
        max_width (float): Width that the tensors were built at.

    Attributes:
        seen (dict): What each batch norm gives, by its published name, in
            the order of the pass.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], width: float, max_width: float
    ) -> None:
        self._weights = weights
        self._width, self._max_width = width, max_width
        self.seen: Dict[str, Tensor] = {}

    def mobilenet_v1(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, H, W)`` to logits of MobileNetV1."""
        x = F.relu6(self._unit(x, 'features.0', 0, 32, 2))
        for number, (base, stride) in enumerate(_V1, 1):
            body = f'features.{number}.body'
            x = F.relu6(self._unit(x, body, 0, stride=stride))
            x = F.relu6(self._unit(x, body, 3, base))
        return self._classify(x, 'classifier.0')

    def mobilenet_v2(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, H, W)`` to logits of MobileNetV2."""
        x = F.relu6(self._unit(x, 'features.0', 0, 32, 2))
        number, inputs = 1, 32
        for expansion, base, blocks, first_stride in _V2:
            for stride in (first_stride, *[1] * (blocks - 1)):
                body, index, out = f'features.{number}.body', 0, x
                if expansion > 1:
                    hidden = expansion * inputs
                    out = self._unit(out, body, 0, hidden, 1, expansion)
                    index, out = 3, F.relu6(out)
                out = F.relu6(self._unit(out, body, index, stride=stride))
                out = self._unit(out, body, index + 3, base)
                x = out + x if stride == 1 and inputs == base else out
                number, inputs = number + 1, base
        x = self._normalise(
            self._whole(x, f'features.{number}.0'), f'features.{number}.1'
        )
        return self._classify(F.relu6(x), 'classifier.0')

    def resnet(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, H, W)`` to logits of a ResNet of bottlenecks."""
        x = F.relu(self._unit(x, 'features.0', 0, 64, 2, 0.25))
        x = F.max_pool2d(x, 3, 2, 1)
        number, base = 1, 128
        while f'features.{number}.body.0.weight' in self._weights:
            block, stride, identity = f'features.{number}', 1, x
            body = f'{block}.body'
            starts_stage = f'{block}.shortcut.0.weight' in self._weights
            if starts_stage:
                base, stride = 2 * base, 2 if number > 1 else 1
            out = F.relu(self._unit(x, body, 0, base // 4, 1, 0.25))
            out = F.relu(self._unit(out, body, 3, base // 4, stride, 0.25))
            out = self._unit(out, body, 6, base)
            if starts_stage:
                shortcut = f'{block}.shortcut'
                identity = self._unit(x, shortcut, 0, base, stride)
            x, number = F.relu(out + identity), number + 1
        return self._classify(x, 'classifier.0')

    def wide_resnet(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, H, W)`` to logits of a Wide ResNet."""
        x = self._convolve(x, 'conv1', self._base('conv1'))
        for group in (1, 2, 3):
            number = 0
            while f'block{group}.layer.{number}.conv1.weight' in self._weights:
                block = f'block{group}.layer.{number}'
                base = self._base(f'{block}.conv1')
                stride = 2 if group > 1 and number == 0 else 1
                out, identity = F.relu(self._normalise(x, f'{block}.bn1')), x
                if f'{block}.convShortcut.weight' in self._weights:
                    shortcut = f'{block}.convShortcut'
                    identity = self._convolve(out, shortcut, base, stride)
                out = self._convolve(out, f'{block}.conv1', base, stride)
                out = F.relu(self._normalise(out, f'{block}.bn2'))
                x = identity + self._convolve(out, f'{block}.conv2', base)
                number += 1
        return self._classify(F.relu(self._normalise(x, 'bn1')), 'fc')

    def _base(self, name: str) -> float:
        """Channels of a convolution at width 1."""
        return self._weights[f'{name}.weight'].shape[0] / self._max_width

    def _unit(
        self,
        x: Tensor,
        place: str,
        index: int,
        base: float = 0,
        stride: int = 1,
        ratio: float = 1.0,
    ) -> Tensor:
        """Convolution ``index`` of a place and the batch norm that follows."""
        x = self._convolve(x, f'{place}.{index}', base, stride, ratio)
        return self._normalise(x, f'{place}.{index + 1}')

    def _convolve(
        self,
        x: Tensor,
        name: str,
        base: float,
        stride: int = 1,
        ratio: float = 1.0,
    ) -> Tensor:
        """Leading channels of a convolution; a depthwise one keeps its own."""
        weight, inputs = self._weights[f'{name}.weight'], x.shape[1]
        padding = weight.shape[-1] // 2
        if weight.shape[1] == 1:
            weight = weight[:inputs]
            return F.conv2d(x, weight, None, stride, padding, 1, inputs)
        kept = published_channels(base, self._width, ratio)
        return F.conv2d(x, weight[:kept, :inputs], None, stride, padding)

    def _whole(self, x: Tensor, name: str) -> Tensor:
        """A convolution that keeps all of its output at every width."""
        return F.conv2d(x, self._weights[f'{name}.weight'][:, : x.shape[1]])

    def _normalise(self, x: Tensor, name: str) -> Tensor:
        scale, shift = (
            self._weights[f'{name}.{kind}'][: x.shape[1]]
            for kind in ('weight', 'bias')
        )
        x = F.batch_norm(x, None, None, scale, shift, True, 0.0, _EPS)
        self.seen[name] = x
        return x

    def _classify(self, x: Tensor, name: str) -> Tensor:
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        weight = self._weights[f'{name}.weight'][:, : x.shape[1]]
        return F.linear(x, weight, self._weights[f'{name}.bias'])
