"""Networks are made when they are first used, and the eldest is dropped."""

import gc
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch import nn

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.deploy.static_cache import StaticCache

A, B, C, D = (Subnet(width, 32) for width in (0.25, 0.5, 0.75, 1.0))


class Maker:
    """Makes modules that can be told apart, and notes of what."""

    def __init__(self):
        self.made = []

    def __call__(self, subnet):
        self.made.append(subnet)
        return nn.Identity()


@pytest.fixture
def make():
    return Maker()


def test_the_least_recently_used_is_dropped(make):
    cache = StaticCache(make, limit=2)
    assert cache.subnets == [] and make.made == []
    first = cache.get(A)
    assert cache.get(A) is first and make.made == [A]
    cache.get(B)
    assert cache.get(A) is first and cache.subnets == [B, A]
    cache.get(C)  # drops B, which was made later than A but used earlier
    assert cache.subnets == [A, C]
    assert cache.get(A) is first and make.made == [A, B, C]
    cache.get(B)
    assert cache.subnets == [A, B] and make.made == [A, B, C, B]


def test_as_an_independent_model_says(make):
    """A plain list of what was used last, over many requests."""
    cache, used = StaticCache(make, limit=3), []
    requests = [A, B, C, A, D, D, B, C, A, A, D, C, B, A, C, D, B, B, A, D]
    made = []
    for subnet in requests:
        if subnet not in used[-3:]:
            made.append(subnet)
        used = [s for s in used if s != subnet] + [subnet]
        cache.get(subnet)
        assert cache.subnets == used[-3:]
    assert make.made == made and len(made) < len(requests)


def test_dropped_networks_are_freed_at_once(make):
    cache = StaticCache(make, limit=1)
    gc.disable()  # without waiting for the garbage collector
    try:
        first = weakref.ref(cache.get(A))
        assert first() is not None
        held = cache.get(B)
        assert first() is None
        cache.get(C)
        assert held in [held] and cache.subnets == [C]  # who has it, keeps it
        last = weakref.ref(cache.get(C))
        cache.drop([C])
        assert last() is None
    finally:
        gc.enable()


def test_drop(make):
    cache = StaticCache(make, limit=4)
    kept, gone = cache.get(A), cache.get(B)
    cache.drop([B, C])  # one that is not there as well
    assert cache.subnets == [A] and cache.get(A) is kept
    assert cache.get(B) is not gone and make.made == [A, B, B]


def test_a_failure_leaves_nothing_behind():
    def fail(subnet):
        if subnet == B:
            raise MemoryError
        return nn.Identity()

    cache = StaticCache(fail, limit=1)
    first = cache.get(A)
    with pytest.raises(MemoryError):
        cache.get(B)
    assert cache.subnets == [A] and cache.get(A) is first


def test_several_threads_make_it_once():
    start = threading.Barrier(4)

    class Slow(Maker):
        def __call__(self, subnet):
            time.sleep(0.02)
            return super().__call__(subnet)

    make = Slow()
    cache = StaticCache(make, limit=2)

    def get(_):
        start.wait()
        return cache.get(A)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(get, range(4)))
    assert make.made == [A] and {id(net) for net in found} == {id(found[0])}


def test_listed_while_another_thread_switches(make):
    cache, end = StaticCache(make, limit=3), time.monotonic() + 0.5
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def switch():
        while time.monotonic() < end:
            for subnet in (A, B, C, D):
                cache.get(subnet)

    try:
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(switch)
            while not job.done():
                assert len(cache.subnets) <= 3
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize('limit', [0, -1, 1.5, '2', None])
def test_limits_that_are_none(limit, make):
    with pytest.raises(UsageError, match='limit=.*whole number from 1'):
        StaticCache(make, limit)


def test_others_do_not_wait_for_one_that_is_made():
    inside, go_on = threading.Event(), threading.Event()

    def make(subnet):
        if subnet == B:
            inside.set()
            assert go_on.wait(30)
        return nn.Identity()

    cache = StaticCache(make, limit=3)
    first = cache.get(A)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(cache.get, B)
        assert inside.wait(30)
        assert cache.get(A) is first and cache.subnets == [A]
        assert cache.get(C)
        go_on.set()
        assert job.result() is cache.get(B)


def test_statistics_that_change_while_it_is_made():
    made = []

    def make(subnet):
        made.append(subnet)
        if len(made) == 1:
            cache.drop([subnet])
        return nn.Identity()

    cache = StaticCache(make, limit=3)
    assert cache.get(A) is cache.get(A)
    assert made == [A, A]  # the first was of the old ones
