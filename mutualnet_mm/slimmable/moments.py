# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Exact pooling of means and variances."""

from typing import Optional, Tuple

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ConfigError


def values_per_channel(x: Tensor) -> int:
    """Values of each channel in a batch of shape ``(N, C, ...)``."""
    return x.numel() // x.shape[1]


class Moments:
    """Pooled count, mean and squared deviation of a stream of batches.

    Merged pairwise (Chan et al.) in double precision, so that the spread
    *between* batches counts too and large offsets do not cancel.

    Attributes:
        count (int): Values of each channel so far.
        mean (Tensor): Mean of each channel, ``(C, )``.
        m2 (Tensor): Sum of squared deviations from the mean, ``(C, )``.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0)
        self.m2 = torch.zeros(0)

    def update(self, x: Tensor) -> None:
        """Add a batch of shape ``(N, C, ...)``; N may be 0."""
        x = x.detach()
        x = x if x.dtype == torch.double else x.float()
        count = values_per_channel(x)
        mean, var = (x.new_zeros(x.shape[1]) for _ in range(2))
        if count == 1:
            mean = x.flatten()
        elif count > 1:
            # What it leaves in running statistics that forget all else. On
            # a CPU ``var_mean`` takes three times as long.
            torch.native_batch_norm(x, None, None, mean, var, True, 1.0, 1e-5)
        self.add(count, mean, var)

    def add(self, count: int, mean: Tensor, var: Tensor) -> None:
        """Add ``count`` values of a mean and an unbiased variance."""
        # With Bessel's correction.
        self.merge(count, mean.double(), var.double() * max(count - 1, 0))

    def merge(self, count: int, mean: Tensor, m2: Tensor) -> None:
        """Add ``count`` values of a mean and summed squared deviation."""
        if self.count == 0:
            self.count, self.mean, self.m2 = count, mean, m2
            return
        if mean.shape != self.mean.shape:
            raise ConfigError(
                f'a layer saw {len(self.mean)} and then {len(mean)} channels:'
                ' the width must not change while statistics are collected'
            )
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.m2 = self.m2 + m2 + delta**2 * (self.count * count / total)
        self.count = total

    def statistics(self) -> Tuple[Tensor, Tensor]:
        """Mean and biased variance, each of shape ``(C, )``, in double."""
        return self.mean, self.m2 / max(self.count, 1)


def pooled_over_ranks(
    x: Tensor, group: Optional[dist.ProcessGroup]
) -> Moments:
    """Pool one batch per rank, as synchronised batch norm does.

    A collective: every rank of ``group`` has to call it.

    Args:
        x (Tensor): Values of this rank, ``(N, C, ...)``.
        group (ProcessGroup, optional): None means all ranks.
    """
    own = Moments()
    own.update(x)
    packed = torch.cat((own.mean.new_tensor([own.count]), own.mean, own.m2))
    parts = [
        torch.empty_like(packed) for _ in range(dist.get_world_size(group))
    ]
    dist.all_gather(parts, packed, group=group)
    pooled = Moments()
    for part in parts:
        mean, m2 = part[1:].chunk(2)
        pooled.merge(int(part[0]), mean, m2)
    return pooled
