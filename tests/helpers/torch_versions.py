"""Marks of tests that old releases of PyTorch cannot pass."""

import pytest
import torch

_VERSION = tuple(map(int, torch.__version__.split('.')[:2]))
needs_export = pytest.mark.skipif(
    _VERSION < (2, 6), reason='PyTorch exports slim layers from 2.6 on'
)


def skip_without_export(format):
    """Skip a case of a file format that needs that."""
    if format in ('onnx', 'torch') and _VERSION < (2, 6):
        pytest.skip(needs_export.kwargs['reason'])


# The layers of a gated block are not found on 2.1; not tried in between.
needs_traced_chunks = pytest.mark.skipif(
    _VERSION < (2, 6), reason='PyTorch 2.1 does not show chunks to the trace'
)
