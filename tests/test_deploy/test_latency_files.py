"""Latencies in an adaptive file, and in the table beside it."""

import csv
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import adaptive_networks as nets
import pytest
import torch

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import AdaptiveFile, AdaptiveModel
from mutualnet_mm.deploy import check_writable
from mutualnet_mm.deploy import save_latencies as stock_save_latencies
from mutualnet_mm.files import only_writer
from mutualnet_mm.query_table import (
    Latency,
    load_table,
    save_csv,
    save_table,
    table_to_dict,
)

SUBNETS = [Subnet.parse(s) for s in nets.KINDS['classifier'][1]]
FIRST = {s: Latency(float(i + 1), i + 1.5) for i, s in enumerate(SUBNETS)}
SECOND = {s: Latency(10.0 - i, 12.0) for i, s in enumerate(SUBNETS[:3])}
_made = []


@pytest.fixture
def folder(request, tmp_path):
    """As ``build_table`` leaves it."""
    if not _made:
        _made.append(nets.adaptive_file('classifier', request))
    file = _made[0]
    file.save(tmp_path / 'adaptive.pth')
    save_table(file.table, tmp_path / 'table.json')
    save_csv(file.table, tmp_path / 'table.csv')
    return tmp_path


def save_latencies(path, device, latencies):
    """As of the network that the file holds."""
    weights = _made[0].weights
    return stock_save_latencies(path, device, latencies, weights)


def test_several_devices_in_all_files(folder):
    path = folder / 'adaptive.pth'
    before = AdaptiveFile.load(path)
    save_latencies(path, 'cpu-t1-b1', FIRST)
    table = save_latencies(str(path), 'gpu', SECOND)
    assert table.devices == ['cpu-t1-b1', 'gpu']
    for entry in table.entries:
        measured = {'cpu-t1-b1': FIRST[entry.subnet]}
        if entry.subnet in SECOND:
            measured['gpu'] = SECOND[entry.subnet]
        assert entry.latency_ms == measured
    # By hand: scores fall along the table, and the costs on the CPU rise.
    assert [e.subnet for e in table.pareto_by('latency_ms', 'cpu-t1-b1')] == [
        SUBNETS[0]
    ]
    assert [e.subnet for e in table.pareto_by('latency_ms', 'gpu')] == (
        SUBNETS[2::-1]
    )
    after = AdaptiveFile.load(path)
    expected = table_to_dict(table)
    assert table_to_dict(after.table) == expected
    beside = json.loads((folder / 'table.json').read_text())
    assert beside.pop('sha256') and beside == expected
    assert table_to_dict(load_table(folder / 'table.json')) == expected
    rows = list(csv.DictReader((folder / 'table.csv').open()))
    assert [float(r['latency_ms/cpu-t1-b1/p90']) for r in rows] == [
        *(1.5, 2.5, 3.5, 4.5),
    ]
    assert [r['latency_ms/gpu/median'] for r in rows] == [
        *('10.0', '9.0', '8.0', ''),
    ]
    assert after.config == before.config and after.width == before.width
    assert all(after.weights[k].equal(v) for k, v in before.weights.items())
    assert after.statistics.keys() == before.statistics.keys()
    assert {p.name for p in folder.glob('[!.]*')} == {
        *('adaptive.pth', 'table.json', 'table.csv'),
    }


def test_measured_again(folder):
    """Figures of two runs do not mix, and no part replaces a whole."""
    path = folder / 'adaptive.pth'
    save_latencies(path, 'cpu', SECOND)
    table = save_latencies(path, 'cpu', FIRST)
    assert [e.latency_ms for e in table.entries] == [
        {'cpu': FIRST[s]} for s in SUBNETS
    ]
    before = path.read_bytes()
    with pytest.raises(UsageError, match='3 subnets were .* figures stay'):
        save_latencies(path, 'cpu', SECOND)
    assert path.read_bytes() == before


def test_tables_of_something_else_are_left_alone(folder):
    path = folder / 'adaptive.pth'
    table = load_table(folder / 'table.json')
    other = [replace(table.entries[0], macs=7), *table.entries[1:]]
    table = type(table)(other, table.metric, table.task, table.full)
    save_table(table, folder / 'table.json')
    before = [(folder / f'table.{s}').read_bytes() for s in ('json', 'csv')]
    save_latencies(path, 'cpu', FIRST)
    after = [(folder / f'table.{s}').read_bytes() for s in ('json', 'csv')]
    assert after == before
    assert AdaptiveFile.load(path).table.devices == ['cpu']


def test_an_interruption_heals(folder, monkeypatch):
    """Between the files, the table lags behind; the next run mends it."""
    path = folder / 'adaptive.pth'
    with monkeypatch.context() as patch:
        patch.setattr(
            'mutualnet_mm.deploy.latency.save_table',
            lambda *args: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            save_latencies(path, 'cpu', FIRST)
    assert load_table(folder / 'table.json').devices == []
    table = save_latencies(path, 'gpu', SECOND)
    assert table.devices == ['cpu', 'gpu']
    beside = load_table(folder / 'table.json')
    assert table_to_dict(beside) == table_to_dict(table)


def test_a_network_that_was_replaced_meanwhile(folder):
    path = folder / 'adaptive.pth'
    name, weight = next(iter(_made[0].weights.items()))
    other = dict(_made[0].weights, **{name: weight + 1})
    replace(_made[0], weights=other).save(path)
    before = path.read_bytes()
    with pytest.raises(
        UsageError, match='another network .* measure'
    ) as error:
        save_latencies(path, 'cpu', FIRST)
    assert '\n' not in str(error.value) and path.read_bytes() == before


def test_latencies_that_are_measured_while_a_model_runs(folder):
    """A model that was loaded before saves them as well."""
    path, elsewhere = folder / 'adaptive.pth', folder / 'more.pth'
    save_latencies(path, 'cpu', FIRST)
    net, other = AdaptiveModel.from_file(path), AdaptiveModel.from_file(path)
    save_latencies(path, 'gpu', SECOND)
    save_latencies(path, 'cpu', {s: Latency(1.0, 2.0) for s in SUBNETS})
    other._bank['0.6x-24'] = dict(other._bank['0.5x-24'])
    other.save(path)
    net.save(path)
    file = AdaptiveFile.load(path)
    assert sorted(file.table.devices) == ['cpu', 'gpu']
    for entry in file.table.entries:
        assert entry.latency_ms['cpu'] == Latency(1.0, 2.0)
        assert entry.latency_ms.get('gpu') == SECOND.get(entry.subnet)
    assert '0.6x-24' in file.statistics
    net.save(elsewhere)
    assert AdaptiveFile.load(elsewhere).table.devices == ['cpu']
    with torch.no_grad():
        net.file.weights['head.fc.bias'].add_(1)
    net.save(path)  # of other weights: nothing of the file is true
    assert AdaptiveFile.load(path).table.devices == ['cpu']
    assert '0.6x-24' not in AdaptiveFile.load(path).statistics


@pytest.mark.parametrize('write', ['save', 'save_latencies'])
def test_writers_wait_for_each_other(folder, write):
    path = folder / 'adaptive.pth'
    net = AdaptiveModel.from_file(path)
    do = dict(
        save=lambda: net.save(path),
        save_latencies=lambda: save_latencies(path, 'cpu', FIRST),
    )[write]
    before = path.read_bytes()
    with ThreadPoolExecutor(1) as pool:
        with only_writer(path):
            job = pool.submit(do)
            time.sleep(0.5)
            assert not job.done() and path.read_bytes() == before
        job.result()
    assert path.read_bytes() != before or write == 'save'


def test_no_table_beside(folder):
    for suffix in ('json', 'csv'):
        (folder / f'table.{suffix}').unlink()
    save_latencies(folder / 'adaptive.pth', 'cpu', FIRST)
    assert [p.name for p in folder.glob('[!.]*')] == ['adaptive.pth']


@pytest.mark.parametrize('text', ['{"rows": []}', 'no JSON'])
def test_a_table_of_another_program(folder, text):
    (folder / 'table.json').write_text(text)
    save_latencies(folder / 'adaptive.pth', 'cpu', FIRST)


def test_latencies_of_another_network(folder):
    path = folder / 'adaptive.pth'
    before = path.read_bytes()
    with pytest.raises(UsageError, match='0.3x-32: the table has no such'):
        save_latencies(path, 'cpu', {Subnet(0.3, 32): Latency(1.0, 1.0)})
    assert path.read_bytes() == before


@pytest.mark.parametrize('locked', ['file', 'folder', 'link', None])
def test_read_only(tmp_path, monkeypatch, locked):
    """As the system tells a user who is not its administrator."""
    path = tmp_path / 'adaptive.pth'
    path.touch()
    refused = {'file': path, 'folder': tmp_path}.get(locked)
    if locked == 'link':  # the draft is made beside the file it points to
        folder = refused = tmp_path / 'results'
        folder.mkdir()
        path.rename(folder / 'epoch.pth')
        path.symlink_to(folder / 'epoch.pth')
    monkeypatch.setattr(
        os, 'access', lambda place, mode: mode == os.W_OK and place != refused
    )
    if locked is None:
        check_writable(str(path))
        return
    with pytest.raises(UsageError, match='adaptive.pth.*: copy it to a fol'):
        check_writable(path)
