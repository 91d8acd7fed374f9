"""Marks of tests that old releases of MMEngine cannot pass."""

import mmengine
import pytest
from mmengine.utils import digit_version

needs_skipped_data = pytest.mark.skipif(
    digit_version(mmengine.__version__) < digit_version('0.10.3'),
    reason='loops over iterations begin the data anew before MMEngine 0.10.3',
)
