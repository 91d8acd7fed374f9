"""Latencies of subnets, by a made-up clock."""

import adaptive_networks as nets
import cv2
import numpy as np
import pytest
import torch

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import AdaptiveModel, measure_latencies
from mutualnet_mm.deploy import energy
from mutualnet_mm.query_table import Latency

WARM_UP = 3  # runs of each subnet that are not timed
SUBNETS = [Subnet.parse(s) for s in nets.KINDS['classifier'][1]]
_made = {}


@pytest.fixture
def make(request):
    """Return an adaptive model, and note each call of its network."""

    def make(kind='classifier'):
        if kind not in _made:
            _made[kind] = AdaptiveModel(nets.adaptive_file(kind, request))
        net = _made[kind].handle()
        predict, net.calls = net.predict, []

        def noting(inputs, samples):
            net.calls.append((net.current, tuple(inputs.shape)))
            return predict(inputs, samples)

        net.predict = noting
        return net

    return make


@pytest.fixture
def durations(monkeypatch):
    """What the clock shows of one run after the other, in milliseconds."""
    durations, reads = [], []

    def now():
        passed = sum(durations[: len(reads) // 2 + len(reads) % 2])
        reads.append(passed)
        return passed / 1000

    monkeypatch.setattr('mutualnet_mm.deploy.latency.perf_counter', now)
    return durations


def test_median_and_p90(make, durations):
    net, repeats = make(), 7
    rng = np.random.default_rng(0)
    times = rng.lognormal(3.0, 1.0, (len(SUBNETS), WARM_UP + repeats))
    times[:, :WARM_UP] += 1e4  # would show
    durations.extend(times.ravel())
    net.use('0.5x-24')
    found = measure_latencies(net, repeats=repeats)
    assert list(found) == [entry.subnet for entry in net.table.entries]
    for subnet, row in zip(SUBNETS, times[:, WARM_UP:]):
        assert found[subnet].median == pytest.approx(np.sort(row)[3])
        assert found[subnet].p90 == pytest.approx(np.percentile(row, 90))
    assert str(net.current) == '0.5x-24'
    expected = [s for s in SUBNETS for _ in range(WARM_UP + repeats)]
    assert [subnet for subnet, _ in net.calls] == expected


def test_the_device_has_finished_before_the_clock_is_read(make, monkeypatch):
    net, events = make(), []
    predict = net.predict

    def note(event, result=None):
        events.append(event)
        return result

    net.predict = lambda *batch: note('run', predict(*batch))
    net.synchronize = lambda: note('wait')
    clock = iter(range(1000))
    monkeypatch.setattr(
        'mutualnet_mm.deploy.latency.perf_counter',
        lambda: note('clock', next(clock)),
    )
    measure_latencies(net, repeats=1)
    one = ['wait', 'clock', 'run', 'wait', 'clock']
    assert events == one * (len(SUBNETS) * (WARM_UP + 1))


@pytest.mark.parametrize(
    'kind, batch_size, shape',
    [
        ('classifier', 3, (3, 3, 32, 32)),
        ('detector', 2, (2, 3, 64, 96)),  # 480 x 640, scaled and padded
        ('slow', 2, (2, 1, 3, 4, 32, 32)),
        ('slowfast', 1, (1, 1, 3, 16, 32, 32)),
    ],
)
def test_noise_of_the_full_resolution(make, kind, batch_size, shape):
    net = make(kind)
    found = measure_latencies(net, batch_size, repeats=1)
    assert {seen for _, seen in net.calls} == {shape}
    assert len(found) == len(nets.KINDS[kind][1])
    assert all(0 < latency.median < 60_000 for latency in found.values())


def test_images_fill_the_batch(make, tmp_path):
    net, files = make(), [str(tmp_path / f'{i}.png') for i in range(2)]
    for i, file in enumerate(files):
        cv2.imwrite(file, np.full((32, 32, 3), 100 * i, np.uint8))
    taken = []
    prepare = net.prepare
    net.prepare = lambda images: taken.append(images) or prepare(images)
    measure_latencies(net, 5, repeats=1, images=files)
    measure_latencies(net, 1, repeats=1, images=files)
    assert taken == [[*files, *files, files[0]], files[:1]]
    assert {shape for _, shape in net.calls} == {
        *((5, 3, 32, 32), (1, 3, 32, 32)),
    }
    with pytest.raises(UsageError, match="'gone.png' cannot be read"):
        measure_latencies(net, images=['gone.png'])


def test_images_in_every_form(make, tmp_path):
    net, file = make(), str(tmp_path / 'a.png')
    images = np.zeros((3, 32, 32, 3), np.uint8)
    images[1], images[2] = 100, 200
    cv2.imwrite(file, images[1])
    taken = []
    prepare = net.prepare
    net.prepare = lambda images: taken.append(images) or prepare(images)
    for given in (file, images, images[1]):
        measure_latencies(net, 2, repeats=1, images=given)
    assert taken[0] == [file, file]
    assert [image.mean() for image in taken[1]] == [0, 100]
    assert [image.mean() for image in taken[2]] == [100, 100]
    with pytest.raises(UsageError, match='no image was given'):
        measure_latencies(net, images=[])


@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
def test_one_view_of_each_video(request, make, kind):
    """As of noise, however many the test pipeline makes."""
    pipeline = nets.config(kind, request).test_dataloader.dataset.pipeline
    pipeline[1].num_clips = 3
    settings = dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)))
    file = nets.adaptive_file(kind, request, **settings)
    _made['views'] = AdaptiveModel(file)
    net = make('views')
    clips = np.zeros((2, 20, 40, 40, 3), np.uint8)
    inputs, _ = net.prepare(clips)
    assert inputs.shape[:2] == (2, 3)
    for images in (list(clips), None):
        net.calls.clear()
        measure_latencies(net, 2, repeats=1, images=images)
        assert {seen for _, seen in net.calls} == {(2, 1, *inputs.shape[2:])}


def test_static_networks_are_measured_as_such(make):
    net = make()
    net.make_static(limit=1)
    measure_latencies(net, repeats=1)
    assert net.static_subnets == [net.current] == [SUBNETS[0]]


@pytest.mark.parametrize('runs', [0, 4, 11])
def test_interruption_keeps_what_is_finished(make, durations, runs):
    net = make()
    durations.extend([2.0] * 100)
    net.use('0.75x-32')
    predict = net.predict

    def predict_until(*batch):
        if len(net.calls) == runs:
            raise KeyboardInterrupt
        return predict(*batch)

    net.predict = predict_until
    found = measure_latencies(net, repeats=1)
    done = runs // (WARM_UP + 1)
    assert found == {s: Latency(2.0, 2.0) for s in SUBNETS[:done]}
    assert str(net.current) == '0.75x-32'


def test_an_error_restores_the_subnet(make):
    net = make()
    net.use('0.75x-32')

    def track(subnets):
        yield from subnets[:2]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure_latencies(net, repeats=1, track=track)
    assert str(net.current) == '0.75x-32'
    assert {subnet for subnet, _ in net.calls} == set(SUBNETS[:2])


@pytest.mark.parametrize('name', ['batch_size', 'repeats'])
@pytest.mark.parametrize('value', [0, -1, 1.5, '3', None])
def test_numbers_that_are_none(make, name, value):
    net = make()
    with pytest.raises(UsageError, match=f'{name}={value!r}: use a whole'):
        measure_latencies(net, **{name: value})
    assert net.calls == []


def test_throughput_at_the_best_batch(make, durations):
    """Medians by batch size; each subnet has another best one."""
    net, repeats = make(), 3
    best = {1: (20.0, 100.0, 900.0), 4: (20.0, 30.0, 200.0)}
    best.update({8: (20.0, 90.0, 100.0)})
    medians = [best[1], best[4], best[8], best[4]]
    for row in medians:
        for median in row:
            durations.extend([1e4] * WARM_UP)
            durations.extend([median, median / 2, 2 * median])
    found = measure_latencies(net, 1, repeats, throughput=[8, 4, 8])
    rates = [(50.0, 1), (4 / 0.03, 4), (80.0, 8), (4 / 0.03, 4)]
    for subnet, row, (rate, batch) in zip(SUBNETS, medians, rates):
        assert found[subnet].median == pytest.approx(row[0])
        assert found[subnet].images_per_second == pytest.approx(rate)
        assert found[subnet].best_batch == batch
        assert found[subnet].energy_mj is None
    sizes = [shape[0] for _, shape in net.calls]
    assert sizes == [
        size
        for _ in SUBNETS
        for size in (1, 4, 8)
        for _ in range(WARM_UP + repeats)
    ]


def test_a_batch_that_the_memory_does_not_hold(make):
    net = make()
    predict = net.predict

    def of_few(inputs, samples):
        if len(inputs) > 2:
            raise torch.cuda.OutOfMemoryError('too much')
        return predict(inputs, samples)

    net.predict = of_few
    found = measure_latencies(net, repeats=1, throughput=[2, 64])
    assert {latency.best_batch for latency in found.values()} <= {1, 2}
    assert all(latency.images_per_second for latency in found.values())
    with pytest.raises(torch.cuda.OutOfMemoryError):
        measure_latencies(net, batch_size=3, repeats=1)


def test_energy_of_an_image(make, monkeypatch):
    """Of a batch of two: counters say what it took, in each run."""
    net = make()
    used = dict(zip(SUBNETS, (90.0, 60.0, 30.0, 10.0)))
    seconds, joules = [0.0], [1e6]
    predict = net.predict

    def spend(inputs, samples):
        seconds[0] += 0.25
        joules[0] += used[net.current]
        return predict(inputs, samples)

    net.predict = spend
    meter = energy.EnergyMeter({'made up': lambda: joules[0]})
    monkeypatch.setattr(
        meter,
        'of_a_run',
        lambda run: energy.EnergyMeter.of_a_run(
            meter, run, clock=lambda: seconds[0]
        ),
    )
    monkeypatch.setattr(
        'mutualnet_mm.deploy.latency.energy_meter', lambda device: meter
    )
    found = measure_latencies(net, 2, repeats=1, energy=True)
    for subnet, millijoules in used.items():
        assert found[subnet].energy_mj == pytest.approx(millijoules / 2)
        assert found[subnet].images_per_second is None
    assert len(net.calls) == len(SUBNETS) * (WARM_UP + 1 + 8)


def test_energy_that_is_not_told(make, monkeypatch, tmp_path):
    """Refused before any run."""
    monkeypatch.setattr(energy, 'POWERCAP', tmp_path)
    net = make()
    with pytest.raises(UsageError, match='does not tell its energy'):
        measure_latencies(net, repeats=1, energy=True)
    with pytest.raises(UsageError, match='batch size of the throughput=0'):
        measure_latencies(net, repeats=1, throughput=[4, 0])
    assert net.calls == []
