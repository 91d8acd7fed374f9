"""The loss that subnets learn from."""

import numpy as np
import pytest
import torch

from mutualnet_mm.models.losses import alpha_divergence, divergence


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


@pytest.mark.parametrize(
    'q, p, expected',
    [
        # KL(p || q) = ln 5.6 of a class that the student misses.
        (
            [0.1, 0.9],
            [0.56, 0.44],
            0.56 * np.log(5.6) + 0.44 * np.log(0.44 / 0.9),
        ),
        # KL is 0.583, and (E_q[q / p] - 1) / 2 is 0.595.
        ([0.8, 0.2], [0.3, 0.7], (0.8**2 / 0.3 + 0.2**2 / 0.7 - 1) / 2),
        # q / p is 5.3 of the first class, cut to 5.
        ([0.8, 0.2], [0.15, 0.85], (0.8 * 5 + 0.2**2 / 0.85 - 1) / 2),
        ([0.3, 0.7], [0.3, 0.7], 0.0),
    ],
)
def test_alpha_divergence_by_hand(q, p, expected):
    logits, teacher = (
        torch.tensor([x], dtype=torch.double).log() for x in (q, p)
    )
    found = alpha_divergence(logits, teacher).item()
    assert found == pytest.approx(expected, abs=1e-12)


def test_alpha_divergence_of_far_predictions_is_finite():
    """Single precision holds no probability as small as these."""
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 200.0], [0.0, 200.0]])
    loss = alpha_divergence(logits, teacher)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
    assert loss.item() == pytest.approx(100.0)  # KL, of one of two
