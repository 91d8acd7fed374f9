"""The loss that subnets learn from."""

import numpy as np
import pytest
import torch

from mutualnet_mm.models.losses import divergence


def reference(logits, teacher):
    """KL in numpy, in double precision."""
    a, b = (x.double().numpy() for x in (logits, teacher))
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (a, b))
    return (q * np.log(q / p)).sum() / len(a)


@pytest.mark.parametrize('dtype', [torch.double, torch.float, torch.bfloat16])
def test_divergence_is_not_rounded(dtype):
    """Close predictions, as late in training."""
    torch.manual_seed(0)
    teacher = torch.randn(8, 100).to(dtype)
    logits = (teacher + 0.03 * torch.randn(8, 100)).to(dtype)
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype != torch.double):
        found = divergence(logits, teacher)
    assert found.dtype == torch.promote_types(dtype, torch.float)
    assert found.item() == pytest.approx(reference(logits, teacher), rel=1e-2)
