"""tests/benchmarks: what is compared is equal, and figures are right."""

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mutualnet_mm import Subnet

ROOT = Path(__file__).parents[1]
# The configs with less of everything.
TINY = {
    'MobileNetV1': """
model = dict(mutual=dict(resolution=(96, 64)), head=dict(num_classes=10))
""",
    'ResNet-50': """
model = dict(
    mutual=dict(width_range=(0.5, 1.0), resolution=(96, 64)),
    backbone=dict(stem_channels=16, base_channels=16),
    head=dict(num_classes=10, in_channels=512))
""",
    'Slow 8x8 R50': """
model = dict(
    mutual=dict(width_range=(0.5, 1.0), resolution=(96, 64), frames=(4, 3)),
    backbone=dict(base_channels=16),
    cls_head=dict(num_classes=10, in_channels=512))
""",
}


@pytest.fixture
def modules(monkeypatch):
    """The modules of the latency benchmark."""
    monkeypatch.syspath_prepend(str(ROOT / 'tests/benchmarks'))
    import latency
    import latency_networks
    import latency_report
    import latency_switching
    import latency_timing

    yield SimpleNamespace(
        main=latency,
        networks=latency_networks,
        report=latency_report,
        switching=latency_switching,
        timing=latency_timing,
    )
    for name in [n for n in sys.modules if n.startswith('latency')]:
        del sys.modules[name]


@pytest.fixture
def tiny(modules, tmp_path):
    """Return a small one of the benchmark's networks."""

    def make(name):
        network = modules.networks.NETWORKS[name]
        pytest.importorskip(network.project)
        config = tmp_path / 'tiny.py'
        base = ROOT / 'configs' / network.config
        config.write_text(f'_base_ = [{str(base)!r}]\n{TINY[name]}')
        frames = '-3' if 'Slow' in name else ''
        return dataclasses.replace(
            network, config=str(config), pairs=(f'0.75x-64{frames}',)
        )

    return make


@pytest.mark.sweep(1)
@pytest.mark.parametrize('name', TINY)
def test_stock_networks_are_the_subnets(modules, tiny, name):
    subject = modules.networks.Subject(tiny(name), 'cpu')
    subnet = Subnet.parse(subject.network.pairs[0])
    subject.calibrate([subnet])
    stock = subject.build_stock(subnet)
    # Nothing of the package's own runs in it, but for MobileNetV1 itself.
    own = {
        type(m).__name__
        for m in stock.modules()
        if type(m).__module__.startswith('mutualnet_mm')
    }
    assert own <= {'MobileNetV1'}
    inputs, samples = subject.batch(2)
    model = subject.model
    resized = subject.resize(inputs, subnet)
    expected = model.task.resize(model, inputs, samples, subnet)[0]
    torch.testing.assert_close(resized, expected, rtol=0, atol=0)
    fused = modules.networks.fuse(stock)
    with torch.no_grad():
        outputs = [subject.run(net, resized) for net in (stock, fused)]
        statistics = subject.bank[str(subnet)]
        with model.activate(subnet, statistics):
            sliced = subject.run(model, resized)
    torch.testing.assert_close(outputs[0], sliced)
    torch.testing.assert_close(outputs[1], sliced, rtol=1e-3, atol=1e-4)
    for net, count in ((fused, 0), (stock, len(statistics))):
        assert sum(isinstance(m, _BatchNorm) for m in net.modules()) == count


def test_other_channels_are_refused(modules, tiny):
    """0.7 x 16 channels are 11 in the stock class and 12 in the subnet."""
    subject = modules.networks.Subject(tiny('ResNet-50'), 'cpu')
    with pytest.raises(AssertionError, match='0.7'):
        subject.build_stock(Subnet(0.7, 64))


def test_other_outputs_are_refused(modules):
    same = torch.tensor([1.0, -2.0])
    modules.main.check_agreement({'stock': same, 'sliced': same + 1e-4})
    with pytest.raises(AssertionError, match='sliced is off by 5.0e-02'):
        modules.main.check_agreement({'stock': same, 'sliced': same + 0.1})


def test_ratio(modules):
    ratio = modules.timing.ratio
    assert ratio([2.0, 4.0, 60.0], [1.0, 2.0, 30.0]) == [2.0, 2.0, 2.0]
    value, low, high = ratio([3.0, 5.0, 4.0], [2.0, 2.0, 2.0])
    assert (value, low, high) == (2.0, 1.5, 2.5)


def test_turns_are_taken_by_all(modules, monkeypatch):
    """With a clock of which each call takes what is said here."""
    timing, now, order = modules.timing, [0.0], []
    monkeypatch.setattr(timing, 'perf_counter', lambda: now[0])

    def call(name, seconds):
        order.append(name)
        now[0] += seconds

    short, long = 2**-8, 0.5  # which add up without rounding
    calls = dict(a=lambda: call('a', short), b=lambda: call('b', long))
    times = timing.take_turns(calls, 20, limit=100)
    assert times == dict(a=[short] * 20, b=[long] * 20)
    # To warm up, to look how long; of the short one, 5 calls take 20 ms.
    assert order.count('a') == order.count('b') == 2 + 20 * 5
    assert {'a', 'b'} == set(order[4::10])  # who begins a round
    # Rounds of 2.52 s: four are begun within 10 s, at least three are taken.
    assert len(timing.take_turns(calls, 20, limit=10)['a']) == 4
    assert len(timing.take_turns(calls, 20, limit=0)['a']) == 3
    assert len(timing.take_turns(calls, 2, limit=0)['a']) == 2


def test_own_bytes(modules):
    origin = nn.Linear(3, 4)
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(2))
    other[0].weight = origin.weight
    # The bias of 4, and 4 vectors of 2 with a counter of 8 bytes.
    assert modules.switching.own_bytes(other, origin) == 16 + 32 + 8


def test_line(modules):
    assert modules.report.fit_line([1, 2, 4], [3, 5, 9]) == pytest.approx(
        (2, 1, 1)
    )
    # Deviations -1, 0, 1 and 1, -2, 1 go together not at all.
    assert modules.report.fit_line([1, 2, 3], [2, -1, 2]) == pytest.approx(
        (0, 1, 0)
    )


@pytest.mark.nightly
def test_latency(modules, tiny, monkeypatch, tmp_path, capsys):
    name = 'MobileNetV1'
    monkeypatch.setitem(modules.networks.NETWORKS, name, tiny(name))
    out, picture = tmp_path / 'out.json', tmp_path / 'out.png'
    argv = ['latency.py', '--networks', name, '--repeats', '1', '--step', '1']
    argv += ['--batch-size', '1', '2', '--json', str(out)]
    monkeypatch.setattr(sys, 'argv', [*argv, '--plot', str(picture)])
    modules.main.main()
    found = json.loads(out.read_text())
    assert found['torch'] == torch.__version__
    network = found['networks'][name]
    switching = network['switching']
    assert 0 == switching['sliced_bytes'] < switching['weights_bytes']
    assert list(switching['made']) == ['0.25x-64', '1.0x-96']
    calls = [(p['batch_size'], p['call']) for p in network['pairs']]
    assert calls == [
        (size, call) for size in (1, 2) for call in ('predict', 'network')
    ]
    for pair in network['pairs']:
        assert pair['subnet'] == '0.75x-64'
        ms, ratios = pair['ms'], pair['ratios']
        assert ratios['sliced / stock'][0] == pytest.approx(
            ms['sliced'] / ms['stock']
        )
        assert ratios['fused / stock fused'][0] == pytest.approx(
            ms['fused'] / ms['stock fused']
        )
    subnets = [row['subnet'] for row in network['grid']]
    assert subnets == ['1.0x-96', '1.0x-64', '0.25x-96', '0.25x-64']
    assert all(set(row['ms']) == {'1', '2'} for row in network['grid'])
    assert picture.read_bytes().startswith(b'\x89PNG')
    printed = capsys.readouterr()
    assert f'{name}: grid measured' in printed.err
    tables = [x for x in printed.out.splitlines() if x.startswith('| ')]
    # Headers and lines; 4 switches, 4 comparisons, 4 subnets.
    assert len(tables) == 3 * 2 + 4 + 4 + 4
    assert printed.out.count('R^2') == 2
