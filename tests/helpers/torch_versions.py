"""Marks of tests that old releases of PyTorch cannot pass."""

import pytest
import torch

_VERSION = tuple(map(int, torch.__version__.split('.')[:2]))
needs_export = pytest.mark.skipif(
    _VERSION < (2, 6), reason='PyTorch exports slim layers from 2.6 on'
)

needs_kept_parts = pytest.mark.skipif(
    _VERSION < (2, 3), reason='nothing is kept before PyTorch 2.3'
)


def skip_without_norm(dtype):
    """Skip half precision where batch norms on a CPU have none of it."""
    if dtype == torch.half and _VERSION < (2, 3):
        pytest.skip('this PyTorch has no batch norm of it on a CPU')


def skip_without_export(format):
    """Skip a case of a file format that needs that."""
    if format in ('onnx', 'torch') and _VERSION < (2, 6):
        pytest.skip(needs_export.kwargs['reason'])


def skip_without_autocast(dtype):
    """Skip where autocast on a CPU knows bfloat16 alone, as in PyTorch 2.1."""
    try:
        with torch.autocast('cpu', dtype):
            known = torch.is_autocast_cpu_enabled()
            known &= torch.get_autocast_cpu_dtype() == dtype
    except RuntimeError:
        known = False
    if not known:
        pytest.skip(f'this PyTorch has no autocast to {dtype} on a CPU')


# The layers of a gated block are not found on 2.1; not tried in between.
needs_traced_chunks = pytest.mark.skipif(
    _VERSION < (2, 6), reason='PyTorch 2.1 does not show chunks to the trace'
)
