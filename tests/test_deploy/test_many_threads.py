"""Eight threads over one set of weights, and networks in other processes.

``pytest tests/test_deploy/test_many_threads.py -m nightly``: 1,000 calls.
"""

import gc
import multiprocessing
import random
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import adaptive_networks as nets
import numpy as np
import pytest
import torch
from other_process import predict, score

from mutualnet_mm.apis import AdaptiveModel

pytest.importorskip('mmpretrain')
SUBNETS = nets.KINDS['classifier'][1]
THREADS = 8


@pytest.fixture
def net(request):
    return AdaptiveModel(nets.adaptive_file('classifier', request))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(3)]


@pytest.fixture
def eager_threads():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def expected_scores(net, images):
    """Of one thread: by form, subnet and number of the image."""
    found = {}
    for form, settings in (
        ('sliced', None),
        ('static', dict(fuse_bn=False)),
        ('fused', dict(fuse_bn=True)),
    ):
        one = net.handle()
        if settings is not None:
            one.make_static(**settings)
        for subnet in SUBNETS:
            one.use(subnet)
            for i, image in enumerate(images):
                found[form, subnet, i] = score(one, image)[1]
    return found


class Worker:
    """Calls a network of its own, and switches it by chance in between."""

    def __init__(self, net, images, expected, seed):
        self.net, self.images, self.expected = net, images, expected
        self.draw = random.Random(seed)
        self.form, self.calls, self.wrong, self.done = 'sliced', 0, 0, set()

    def run(self, calls):
        while self.calls < calls:
            kind = self.draw.choice(
                ['use', 'budget', 'static', 'slice', 'controller', 'handle']
            )
            self.done.add(kind)
            getattr(self, kind)()
            self.call()
        return self

    def call(self):
        i = self.draw.randrange(len(self.images))
        subnet, found = score(self.net, self.images[i])
        self.calls += 1
        right = self.expected[self.form, subnet, i]
        self.wrong += not torch.equal(found, right)

    def use(self):
        self.net.use(self.draw.choice(SUBNETS))

    def budget(self):
        self.net.set_budget(macs=self.draw.choice([700, 800, 900, 1000, 5000]))

    def static(self):
        self.form = self.draw.choice(['static', 'fused'])
        self.net.make_static(
            fuse_bn=self.form == 'fused', limit=self.draw.choice([1, 2, 4])
        )

    def slice(self):
        self.net.slice()
        self.form = 'sliced'

    def controller(self):
        deadline = self.draw.choice([1e-3, 5.0, 1e6])
        with self.net.latency_controller(deadline):
            for _ in range(6):
                self.call()

    def handle(self):
        self.net = self.net.handle()


def run_threads(net, images, expected, calls):
    """Let all of them begin at once; return what they did."""
    start = threading.Barrier(THREADS, timeout=120)

    def work(seed):
        worker = Worker(net.handle(), images, expected, seed)
        start.wait()
        return worker.run(calls // THREADS)

    with ThreadPoolExecutor(THREADS) as pool:
        workers = list(pool.map(work, range(THREADS)))
    assert not sum(worker.wrong for worker in workers)
    assert sum(worker.calls for worker in workers) >= calls
    return workers


def compare(net, images, calls):
    expected = expected_scores(net, images)
    assert len({tuple(v[:2].tolist()) for v in expected.values()}) > 8
    run_threads(net, images, expected, THREADS)  # caches of torch and cv2
    before = nets.tensor_memory()
    workers = run_threads(net, images, expected, calls)
    handles = [weakref.ref(worker.net) for worker in workers]
    kinds = set().union(*(worker.done for worker in workers))
    assert len(kinds) == 6, kinds
    del workers
    gc.collect()
    assert not any(handle() for handle in handles)
    after = nets.tensor_memory()
    assert sum(after.values()) <= sum(before.values())
    assert len(net._handles) == 1
    # The network itself is where it was.
    assert str(net.current) == SUBNETS[0] and not net.static_subnets


def test_some_calls_of_eight_threads(net, images, eager_threads):
    compare(net, images, 48)


@pytest.mark.nightly
def test_thousand_calls_of_eight_threads(net, images, eager_threads):
    compare(net, images, 1000)


@pytest.mark.subprocess
@pytest.mark.parametrize(
    'method',
    [
        pytest.param('spawn', marks=pytest.mark.nightly),
        'fork',
    ],
)
def test_a_network_in_another_process(net, images, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f'no {method} here')
    context = multiprocessing.get_context(method)
    net.use(SUBNETS[2])
    answers = context.Queue()
    given = net, images[0], SUBNETS[1], answers
    other = context.Process(target=predict, args=given)
    other.start()
    subnet, first, second = answers.get(timeout=120)
    other.join(60)
    assert other.exitcode == 0 and subnet == SUBNETS[2]
    assert np.array_equal(first, score(net, images[0])[1].numpy())
    assert str(net.current) == SUBNETS[2]  # it has one of its own
    net.use(SUBNETS[1])
    assert np.array_equal(second, score(net, images[0])[1].numpy())
