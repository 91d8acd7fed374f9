"""The best subnet within a budget, as a brute-force search finds it."""

import random
from dataclasses import replace

import adaptive_networks as nets
import pytest

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import AdaptiveModel
from mutualnet_mm.query_table import Latency, QueryTable, TableEntry

COSTS = ('macs', 'latency_ms', 'params')


@pytest.fixture
def net(request):
    return AdaptiveModel(nets.adaptive_file('classifier', request))


def made_up_table(seed):
    """Figures with ties; some subnets without a score or a latency."""
    rng = random.Random(seed)
    entries = []
    for width in range(5, 21):
        for side in (32, 24, 16):
            latency = {
                device: Latency(rng.randint(1, 9) * scale, 99.0)
                for device, scale in (('cpu', 10.0), ('gpu', 1.0))
                if rng.random() < 0.8
            }
            score = None if rng.random() < 0.1 else float(rng.randint(1, 20))
            entries.append(
                TableEntry(
                    Subnet(width / 20, side),
                    rng.randint(1, 30) * 1000,
                    rng.randint(1, 30) * 100,
                    {'accuracy/top1': score},
                    latency,
                )
            )
    return QueryTable(
        entries, 'accuracy/top1', 'classification', Subnet(1.0, 32)
    )


def cost(entry, name):
    if name == 'latency_ms':
        measured = entry.latency_ms.get('cpu')
        return float('inf') if measured is None else measured.median
    return getattr(entry, name)


def test_budgets_by_brute_force(net):
    table, rng = made_up_table(0), random.Random(1)
    net.file = replace(net.file, table=table)
    net._bank = {str(entry.subnet): {} for entry in table.entries}
    ranked = [e for e in table.entries if table.score(e) is not None]
    most = dict(macs=33_000, latency_ms=99.0, params=3300)
    refused = 0
    for _ in range(400):
        names = rng.sample(COSTS, rng.randint(1, 3))
        budgets = {name: rng.random() * most[name] for name in names}
        within = [
            e for e in ranked if all(cost(e, n) <= budgets[n] for n in names)
        ]
        before = net.current
        if not within:
            refused += 1
            with pytest.raises(UsageError, match='the least is') as caught:
                net.set_budget(**budgets, device='cpu')
            for name in names:
                least = min(cost(e, name) for e in ranked)
                assert f'{name}={least:,} of ' in str(caught.value)
            assert net.current == before
            continue
        best = max(map(table.score, within))
        found = net.set_budget(**budgets, device='cpu')
        assert found == net.current
        entry = next(e for e in within if e.subnet == found)
        assert table.score(entry) == best
        if len(names) == 1:
            equals = [e for e in within if table.score(e) == best]
            assert cost(entry, names[0]) == min(
                cost(e, names[0]) for e in equals
            )
    assert 20 < refused < 200


def test_budgets_that_are_none(net):
    net.set_budget(macs=850)
    before = net.current
    assert str(before) == '0.25x-16'  # of 800 MACs and the best of those
    for budgets, message in (
        ({}, 'give a budget: macs, latency_ms, params, p90_ms, energy_mj, '),
        (dict(device='cpu'), 'give a budget'),
        (dict(macs=0), 'budget macs=0: use a positive number'),
        (dict(macs=699), 'least is macs=700 of 0.75x-32'),
        (dict(latency_ms=5), 'no latency_ms: measure it'),
        (dict(p90_ms=5), 'no p90_ms: measure it with mutualnet latency, or'),
        (dict(energy_mj=5), 'no energy_mj: .*mutualnet latency --energy, or'),
        (dict(images_per_second=5), 'latency --throughput 1 8 32, or give'),
    ):
        with pytest.raises(UsageError, match=message):
            net.set_budget(**budgets)
        assert net.current == before
    net.file = replace(net.file, table=made_up_table(0))
    net._bank.update({str(e.subnet): {} for e in net.table.entries})
    for device in (None, 'tpu'):
        with pytest.raises(UsageError, match="'.pu' or '.pu'"):
            net.set_budget(latency_ms=50, device=device)
    slow = net.set_budget(latency_ms=9, device='gpu')
    with pytest.raises(UsageError, match='least is latency_ms=10.0 of'):
        net.set_budget(latency_ms=9, device='cpu')
    assert net.current == slow
