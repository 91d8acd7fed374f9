"""The tests of the proof itself."""

import pytest


@pytest.fixture(autouse=True, scope='module')
def networks_verified_once():
    """Prove each time what other tests prove once in a file."""
