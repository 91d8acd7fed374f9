"""Proves the slicing of each network once, not of each copy of it."""

import io
import pickle
from contextlib import contextmanager
from unittest import mock

import torch

from mutualnet_mm.slimmable import verify


class Description(pickle.Pickler):
    """Writes all that a network is but the values of its tensors."""

    def persistent_id(self, item):
        if isinstance(item, torch.Tensor):
            return tuple(item.shape), str(item.dtype)
        if isinstance(item, dict) and any(isinstance(k, int) for k in item):
            return list(item.values())  # hooks, which torch numbers
        return None


def describe(network):
    """Bytes that are equal for networks built alike; None for some."""
    file = io.BytesIO()
    try:
        Description(file).dump(network)
    except (AttributeError, TypeError, pickle.PicklingError):
        return None  # of a class that a test defines, say
    return file.getvalue()


@contextmanager
def verified_once():
    """Let networks that are built alike be verified once inside.

    Verifying takes most of the time of a build, and tests build the same
    networks again and again. A network that fails is verified each time.
    """
    original, proven = verify._prove, set()

    def prove_new(network, *settings):
        key = describe(network), repr(settings)
        if key[0] is None or key not in proven:
            original(network, *settings)
            proven.add(key)

    with mock.patch.object(verify, '_prove', prove_new):
        yield
