# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The losses of a mutual learning step, and what the log shows of them."""

from typing import Any, Sequence, Union

import torch
import torch.nn.functional as F
from torch import Tensor


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(logits)), mean over the batch.

    At least in single precision: half would round the small differences away.
    """
    single = torch.promote_types(logits.dtype, torch.float)
    logits, teacher = logits.to(single), teacher.to(single)
    return F.kl_div(
        F.log_softmax(logits, dim=1),
        F.softmax(teacher, dim=1),
        reduction='batchmean',
    )


def log_key(key: str) -> str:
    """MMEngine logs the sum as ``loss``; a part of that name would hide it."""
    return 'full/loss' if key == 'loss' else key


def detached(value: Union[Tensor, Sequence[Tensor]]) -> Any:
    """The same loss, or list of losses, without its graph."""
    if isinstance(value, Tensor):
        return value.detach()
    return [v.detach() for v in value]
