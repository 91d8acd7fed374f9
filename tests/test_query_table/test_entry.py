import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.query_table import Latency, TableEntry


@pytest.mark.parametrize(
    'figures, wrong',
    [
        ((0, 1.0), 'median=0'),
        ((1.0, -2.5), 'p90=-2.5'),
        ((math.nan, 1.0), 'median=nan'),
        ((1.0, math.inf), 'p90=inf'),
        ((True, 1.0), 'median=True'),
        (('3', 1.0), "median='3'"),
        ((1.0, None), 'p90=None'),
        ((10**400, 1.0), 'median=1000'),  # no float holds it
    ],
)
def test_what_is_no_latency(figures, wrong):
    with pytest.raises(UsageError, match=f'latency {wrong}') as error:
        Latency(*figures)
    assert 'use a positive number of milliseconds' in str(error.value)


def test_figures_become_plain_floats():
    latency = Latency(np.float32(1.5), p90=np.int64(2))
    assert latency == Latency(1.5, 2.0)
    assert type(latency.median) is type(latency.p90) is float
    with pytest.raises(FrozenInstanceError):
        latency.median = 0.0


def test_costs():
    entry = TableEntry(
        Subnet(0.5, 128),
        macs=7,
        params=5,
        latency_ms={'a': Latency(3.0, 4.0), 'b': Latency(2.0, 9.0)},
    )
    assert entry.cost('macs') == 7
    assert entry.cost('params', 'a') == 5
    assert entry.cost('latency_ms', 'a') == 3.0
    assert entry.cost('latency_ms', 'b') == 2.0
    assert entry.cost('latency_ms', 'c') is None
    assert entry.cost('latency_ms') is None
    assert TableEntry(Subnet(0.5, 128), 7, 5).latency_ms == {}
