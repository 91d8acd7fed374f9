# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The training step of the paper, Algorithm 1, in plain PyTorch.

What the step of this package is compared with: one backward pass for each
subnet, which adds up gradients in the full weights; layers that slice those
weights in each forward pass; no OpenMMLab.
"""

from typing import Any, Dict, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from ..subnet import Subnet

FULL = 'full'


class _Active:
    """The subnet that all layers of a network run as."""

    tag = FULL


class _Conv(nn.Module):
    def __init__(self, full: nn.Conv2d, active: _Active) -> None:
        super().__init__()
        self.weight, self.bias = full.weight, full.bias
        self.sizes: Dict[str, Tuple[int, int, int]] = {}
        self.stride, self.padding = full.stride, full.padding
        self.dilation, self.active = full.dilation, active

    def note(self, tag: str, narrow: Any) -> None:
        outputs, inputs = narrow.weight.shape[:2]
        self.sizes[tag] = (outputs, inputs, narrow.groups)

    def forward(self, x: Tensor) -> Tensor:
        outputs, inputs, groups = self.sizes[self.active.tag]
        weight = self.weight[:outputs, :inputs]
        bias = None if self.bias is None else self.bias[:outputs]
        return F.conv2d(
            *(x, weight, bias, self.stride, self.padding, self.dilation),
            groups,
        )


class _Norm(nn.Module):
    def __init__(self, full: nn.BatchNorm2d, active: _Active) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = full.weight, full.bias, full.eps
        self.register_buffer('mean', torch.zeros_like(full.weight.data))
        self.register_buffer('variance', torch.ones_like(full.weight.data))
        self.active = active

    def note(self, tag: str, narrow: Any) -> None:
        """Its input says how many channels there are."""

    def forward(self, x: Tensor) -> Tensor:
        number = x.shape[1]
        is_full = self.active.tag == FULL
        return F.batch_norm(
            x,
            self.mean if is_full else None,
            self.variance if is_full else None,
            self.weight[:number],
            self.bias[:number],
            training=True,
            eps=self.eps,
        )


class _Linear(nn.Module):
    def __init__(self, full: nn.Linear, active: _Active) -> None:
        super().__init__()
        self.weight, self.bias = full.weight, full.bias
        del active

    def note(self, tag: str, narrow: Any) -> None:
        """Its input says how many columns there are."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight[:, : x.shape[1]], self.bias)


_KINDS = {nn.Conv2d: _Conv, nn.BatchNorm2d: _Norm, nn.Linear: _Linear}


class PublishedLoop:
    """Trains a classifier as the paper's Algorithm 1 says.

    Args:
        networks (dict[str, nn.Module]): The static form of each subnet of a
            step, ``'full'`` first. The full one is changed: it becomes the
            network that is sliced.
        plan (dict[str, Subnet]): The subnets of a step, by the same tags.

    Raises:
        UsageError: If layers are of other kinds than plain 2D classifiers
            have.
    """

    def __init__(
        self, networks: Dict[str, nn.Module], plan: Dict[str, Subnet]
    ) -> None:
        self.plan, self._active = plan, _Active()
        self.net: Any = networks[FULL]
        narrow = {
            tag: dict(net.named_modules()) for tag, net in networks.items()
        }
        for name, layer in list(self.net.named_modules()):
            kinds = [k for k in _KINDS if isinstance(layer, k)]
            if not kinds:
                if [*layer.parameters(recurse=False)]:
                    raise UsageError(
                        f'{name}: the published loop is written for '
                        'convolutions, batch norms and linear layers, not '
                        f'for {type(layer).__name__}'
                    )
                continue
            plain: Any = _KINDS[kinds[0]](layer, self._active)
            for tag, layers in narrow.items():
                plain.note(tag, layers[name])
            parent, _, own = name.rpartition('.')
            setattr(self.net.get_submodule(parent), own, plain)
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=0.0, momentum=0.9
        )

    def step(self, images: Sequence[Tensor], labels: Tensor) -> None:
        """Run one step.

        Args:
            images (Sequence[Tensor]): Normalised, (N, C, H, W), of the full
                resolution alone, or one for each subnet of the plan.
            labels (Tensor): Of the images, int64, (N, ).
        """
        self.optimizer.zero_grad()
        soft: Optional[Tensor] = None
        for i, (tag, subnet) in enumerate(self.plan.items()):
            self._active.tag = tag
            x = images[i] if len(images) > 1 else images[0]
            if x.shape[-1] != subnet.resolution:
                size = (subnet.resolution, subnet.resolution)
                x = F.interpolate(x, size, mode='bilinear', antialias=True)
            logits = self._logits(x)
            if soft is None:
                loss = F.cross_entropy(logits, labels)
                soft = logits.detach().softmax(1)
            else:  # the cross entropy to it has the gradient of KL
                loss = -(soft * logits.log_softmax(1)).sum(1).mean()
            loss.backward()
        self.optimizer.step()

    def _logits(self, x: Tensor) -> Tensor:
        outputs = self.net(x, mode='tensor')
        outputs = outputs[-1] if isinstance(outputs, tuple) else outputs
        return outputs.flatten(1)
