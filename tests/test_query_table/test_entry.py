import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.query_table import Latency, TableEntry
from mutualnet_mm.query_table.entry import MEASURED


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


@pytest.mark.parametrize(
    'figures, wrong',
    [
        (dict(energy_mj=0), 'energy_mj=0'),
        (dict(energy_mj=math.inf), 'energy_mj=inf'),
        (dict(images_per_second=-1.0, best_batch=8), 'images_per_second=-1'),
        (dict(images_per_second=9.0), 'best_batch=None'),
        (dict(images_per_second=9.0, best_batch=0), 'best_batch=0'),
        (dict(images_per_second=9.0, best_batch=1.5), 'best_batch=1.5'),
        (dict(best_batch=8), 'best_batch=8'),
        (dict(best_batch=0), 'best_batch=0'),
    ],
)
def test_what_is_no_figure_beside_it(figures, wrong):
    with pytest.raises(UsageError, match=f'latency {wrong}'):
        Latency(1.0, 2.0, **figures)


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
        latency_ms={
            'a': Latency(3.0, 4.0, 90.0, 8, np.float32(0.5)),
            'b': Latency(2.0, 9.0),
        },
    )
    assert entry.cost('macs') == 7
    assert entry.cost('params', 'a') == 5
    assert entry.cost('latency_ms', 'a') == 3.0
    assert entry.cost('latency_ms', 'b') == 2.0
    assert entry.cost('latency_ms', 'c') is None
    assert entry.cost('latency_ms') is None
    found = [entry.cost(name, 'a') for name in MEASURED]
    assert found == [3.0, 4.0, 0.5, 90.0] and type(found[2]) is float
    found = [entry.cost(name, 'b') for name in MEASURED]
    assert found == [2.0, 9.0, None, None]
    assert TableEntry(Subnet(0.5, 128), 7, 5).latency_ms == {}
