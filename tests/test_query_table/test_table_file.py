import csv
import json
import math

import pytest

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.query_table import (
    Cascade,
    Latency,
    QueryTable,
    TableEntry,
    load_table,
    save_csv,
    save_table,
)


@pytest.fixture
def table():
    entries = [
        TableEntry(
            Subnet(1.0, 224, 8),
            400,
            40,
            {'acc/top1': 0.1 + 0.2, 'acc/mean1': math.nan},
            {'gpu-b8': Latency(0.1 + 0.2, 1), 'cpu-t2-b1': Latency(9.5, 10)},
            head_macs=7,
        ),
        TableEntry(
            Subnet(0.63, 142, 3),
            500,
            20,
            {'acc/top1': 0.25},
            {'cpu-t2-b1': Latency(1 / 3, 37 / 3)},
        ),
        TableEntry(Subnet(0.63, 142, 8), 100, 20, {}),
    ]
    full = Subnet(1.0, 224, 8)
    return QueryTable(entries, 'acc/top1', 'action', full, 50, views=30)


def test_layout(table, tmp_path):
    save_table(table, tmp_path / 'table.json')
    content = json.loads((tmp_path / 'table.json').read_text())
    low, high = content['entries'][0].pop('interval')
    assert 0 < low < 0.3 < high < 1
    assert content['entries'][0] == {
        'subnet': '1.0x-224-8',
        'width': 1.0,
        'resolution': 224,
        'frames': 8,
        'macs': 400,
        'head_macs': 7,
        'params': 40,
        'latency_ms': {
            'gpu-b8': {'median': 0.1 + 0.2, 'p90': 1.0, 'pareto': True},
            'cpu-t2-b1': {'median': 9.5, 'p90': 10.0, 'pareto': True},
        },
        'metrics': {'acc/top1': 0.1 + 0.2, 'acc/mean1': None},
        'pareto': True,
    }
    assert [e['pareto'] for e in content['entries']] == [True, False, False]
    # Faster than the first, which is no matter of MACs.
    assert content['entries'][1]['latency_ms'] == {
        'cpu-t2-b1': {'median': 1 / 3, 'p90': 37 / 3, 'pareto': True}
    }
    assert content['entries'][2]['latency_ms'] == {}
    assert content['entries'][2]['interval'] is None
    del content['entries']
    assert list(content)[-1] == 'sha256' and len(content.pop('sha256')) == 64
    assert content == {
        'schema': 1,
        'task': 'action',
        'metric': 'acc/top1',
        'full': '1.0x-224-8',
        'num_images': 50,
        'views': 30,
        'cascades': None,
    }


def test_round_trip(table, tmp_path):
    first, second = tmp_path / 'first.json', tmp_path / 'second.json'
    save_table(table, first)
    again = load_table(first)
    assert again.entries[1:] == table.entries[1:]
    latencies = [entry.latency_ms for entry in table.entries]
    assert [entry.latency_ms for entry in again.entries] == latencies
    assert again.devices == ['gpu-b8', 'cpu-t2-b1']
    assert again.views == 30
    save_table(again, second)
    assert first.read_bytes() == second.read_bytes()


def test_the_front_of_every_device_is_told(table, tmp_path):
    slow, fast = Latency(11, 12), Latency(10, 12)
    first, second, third = (entry.subnet for entry in table.entries)
    table = table.with_latencies('npu', {first: fast, second: slow})
    save_table(table.with_latencies('x', {third: fast}), tmp_path / 't.json')
    entries = json.loads((tmp_path / 't.json').read_text())['entries']
    told = [entry['latency_ms'].get('npu') for entry in entries]
    assert [t and t['pareto'] for t in told] == [True, False, None]
    # A subnet without a score is on no front.
    assert entries[2]['latency_ms']['x']['pareto'] is False


def test_csv(table, tmp_path):
    save_csv(table, tmp_path / 'table.csv')
    with (tmp_path / 'table.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['subnet'] for row in rows] == [
        '1.0x-224-8',
        '0.63x-142-3',
        '0.63x-142-8',
    ]
    assert rows[0]['acc/top1'] == '0.3'  # of 0.1 + 0.2
    assert rows[0]['acc/mean1'] == rows[2]['acc/top1'] == ''
    assert float(rows[0]['interval_low']) < 0.3
    assert [row['pareto'] for row in rows] == ['True', 'False', 'False']
    medians = [row['latency_ms/cpu-t2-b1/median'] for row in rows]
    assert medians == ['9.5', '0.3333333', '']
    assert [row['latency_ms/cpu-t2-b1/p90'] for row in rows] == [
        *('10.0', '12.33333', ''),
    ]
    assert [row['latency_ms/gpu-b8/pareto'] for row in rows] == [
        *('True', '', ''),
    ]
    assert not any('{' in cell for row in rows for cell in row.values())


def test_what_else_was_measured(table, tmp_path):
    """Beside the latency, where there is any; again as it was."""
    path, subnet = tmp_path / 'table.json', table.entries[1].subnet
    latency = Latency(3.0, 4.0, 1 / 3, 8, 0.25)
    table = table.with_latencies('npu', {subnet: latency})
    save_table(table, path)
    entries = json.loads(path.read_text())['entries']
    assert entries[1]['latency_ms']['npu'] == {
        'median': 3.0,
        'p90': 4.0,
        'pareto': True,
        'images_per_second': 1 / 3,
        'best_batch': 8,
        'energy_mj': 0.25,
    }
    # Those without any are as earlier releases write and read them.
    assert set(entries[0]['latency_ms']['gpu-b8']) == {
        *('median', 'p90', 'pareto'),
    }
    again = load_table(path)
    assert again.entries[1].latency_ms['npu'] == latency
    save_csv(again, tmp_path / 'table.csv')
    with (tmp_path / 'table.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    for name, cell in (
        ('images_per_second', '0.3333333'),
        ('best_batch', '8'),
        ('energy_mj', '0.25'),
    ):
        assert [row[f'{name}/npu'] for row in rows] == ['', cell, '']


def test_a_file_of_before_there_was_video(table, tmp_path):
    path = tmp_path / 'table.json'
    save_table(table, path)
    content = json.loads(path.read_text())
    del content['views']
    del content['sha256']  # nor was there a checksum
    path.write_text(json.dumps(content))
    again = load_table(path)
    assert again.views is None and again.num_images == 50
    assert again.entries[1:] == table.entries[1:]


def test_a_file_of_before_there_were_devices(table, tmp_path):
    path = tmp_path / 'table.json'
    save_table(table, path)
    content = json.loads(path.read_text())
    content['entries'][0]['latency_ms'] = None
    del content['sha256']  # nor was there a checksum
    del content['entries'][1]['latency_ms']
    path.write_text(json.dumps(content))
    again = load_table(path)
    assert again.devices == []
    assert again.entries[2] == table.entries[2]


@pytest.fixture
def with_cascades(table):
    """Beside the table: two cascades of its subnets."""
    stages = Subnet(0.63, 142, 8), Subnet(1.0, 224, 8)
    found = [
        Cascade(stages, 0.1 + 0.7, 100 + 1 / 3, 500, 'acc/top1', 0.26),
        Cascade(stages, 0.9, 300.0, 500, 'acc/top1', 0.1 + 0.21),
    ]
    parts = table.entries, table.metric, table.task, table.full
    return QueryTable(*parts, 50, 30, found)


def test_cascades(with_cascades, tmp_path):
    first, second = tmp_path / 'first.json', tmp_path / 'second.json'
    save_table(with_cascades, first)
    content = json.loads(first.read_text())
    low, high = content['cascades'][0].pop('interval')
    assert 0.1 < low < 0.26 < high < 0.5
    assert content['cascades'][0] == {
        'stages': ['0.63x-142-8', '1.0x-224-8'],
        'measure': 'max probability',
        'threshold': 0.1 + 0.7,
        'mean_macs': 100 + 1 / 3,
        'macs': 500,
        'metric': 'acc/top1',
        'accuracy': 0.26,
    }
    again = load_table(first)
    assert again.cascades == with_cascades.cascades
    latency = {again.entries[0].subnet: Latency(1, 2)}
    assert again.with_latencies('x', latency).cascades == again.cascades
    assert again.ranked_by('acc/top1').cascades == again.cascades
    save_table(again, second)
    assert first.read_bytes() == second.read_bytes()


def test_no_cascade_is_not_the_same_as_none_sought(table, tmp_path):
    parts = table.entries, table.metric, table.task, table.full
    save_table(QueryTable(*parts, cascades=[]), tmp_path / 'table.json')
    assert load_table(tmp_path / 'table.json').cascades == ()
    assert table.cascades is None


def test_a_file_of_before_there_were_cascades(with_cascades, tmp_path):
    path = tmp_path / 'table.json'
    save_table(with_cascades, path)
    content = json.loads(path.read_text())
    del content['cascades']
    del content['sha256']  # nor was there a checksum
    path.write_text(json.dumps(content))
    again = load_table(path)
    assert again.cascades is None
    assert again.entries[1:] == with_cascades.entries[1:]


@pytest.mark.parametrize(
    'key, value',
    [
        ('stages', ['0.63x-142-8']),
        ('stages', ['0.63x-142-8', 1.0]),
        ('stages', ['0.63x-142-8', '0.5x-142-8']),  # not in the table
        ('stages', ['0.63x-142-8', 'large']),
        ('measure', 'entropy'),
        ('measure', None),
        ('threshold', '0.5'),
        ('threshold', math.nan),
        ('mean_macs', None),
        ('mean_macs', 99.0),  # less than the first subnet
        ('mean_macs', 501.0),
        ('macs', 400),  # less than both
        ('metric', 1),
        ('accuracy', None),
    ],
)
def test_a_damaged_cascade(with_cascades, tmp_path, key, value):
    path = tmp_path / 'table.json'
    save_table(with_cascades, path)
    content = json.loads(path.read_text())
    content['cascades'][1][key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match='table.json is damaged: ') as error:
        load_table(path)
    assert '\n' not in str(error.value)
    content['cascades'][1] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match='cascade 3 is not an object'):
        load_table(path)


def without(key):
    def change(content):
        del content[key]

    return change


def latency_with(**figures):
    def change(content):
        content['entries'][1]['latency_ms']['cpu-t2-b1'].update(figures)

    return change


def entry_with(key, value):
    def change(content):
        content['entries'][1][key] = value

    return change


@pytest.mark.parametrize(
    'change, message',
    [
        (without('schema'), 'is not a query table'),
        (without('entries'), 'is not a query table'),
        (without('metric'), 'is damaged: metric=None'),
        (lambda c: c.update(schema=2), 'has schema 2.*update mutualnet_mm'),
        (lambda c: c.update(full='large'), "damaged: subnet 'large'"),
        (lambda c: c.update(entries=[]), 'damaged: no subnet'),
        (lambda c: c['entries'].append(3), 'damaged: entry 3'),
        (lambda c: c.update(views=0), 'damaged: views=0'),
        (entry_with('macs', 'many'), "damaged: 0.63x-142-3: macs='many'"),
        (entry_with('head_macs', 1.5), 'damaged: .*head_macs=1.5'),
        (entry_with('macs', 0), 'damaged: 0.63x-142-3: macs=0'),
        (entry_with('macs', -400), 'damaged: 0.63x-142-3: macs=-400'),
        (entry_with('macs', 10**400), 'damaged: 0.63x-142-3: macs=10+[.]{3}'),
        (entry_with('metrics', {'a': math.inf}), 'damaged: .*metrics'),
        (entry_with('metrics', {'a': math.nan}), 'damaged: .*metrics'),
        (entry_with('metrics', {'a': 10**400}), 'damaged: .*metrics'),
        (entry_with('metrics', {'acc/top1': 0.9}), 'changed after it was wr'),
        (entry_with('macs', 501), 'changed after it was written'),
        (lambda c: c.update(schema=0), 'is not a query table'),
        (lambda c: c.update(schema=True), 'is not a query table'),
        (lambda c: c.update(entries=[3] * (10**5 + 1)), 'damaged: entries='),
        (entry_with('params', -1), 'damaged: 0.63x-142-3: params=-1'),
        (entry_with('subnet', None), 'damaged: .*subnet=None'),
        (entry_with('subnet', '1.0x-224-8'), 'damaged: .* twice'),
        (entry_with('metrics', {'a': 'b'}), 'damaged: .*metrics'),
        (
            entry_with('latency_ms', '3'),
            "damaged: 0.63x-142-3: latency_ms='3'",
        ),
        (entry_with('latency_ms', 12.5), 'damaged: .*latency_ms=12.5'),
        (entry_with('latency_ms', {'cpu': 12.5}), 'damaged: .*latency_ms'),
        (entry_with('latency_ms', {'cpu': {'p90': 1}}), 'damaged: .*latency'),
        (latency_with(median=0), 'damaged: .*latency_ms'),
        (latency_with(median=-1.5), 'damaged: .*latency_ms'),
        (latency_with(median=True), 'damaged: .*latency_ms'),
        (latency_with(median=math.nan), 'damaged: .*latency_ms'),
        (latency_with(p90=math.inf), 'damaged: .*latency_ms'),
        (latency_with(p90=10**400), 'damaged: .*latency_ms'),
        (latency_with(p90='3'), 'damaged: .*latency_ms'),
        (latency_with(p90=None), 'damaged: .*latency_ms'),
        (latency_with(energy_mj=-1), 'damaged: .*energy_mj=-1'),
        (latency_with(energy_mj='3'), "damaged: .*energy_mj='3'"),
        (latency_with(images_per_second=3.0), 'damaged: .*best_batch=None'),
        (latency_with(best_batch=2.5), 'damaged: .*latency_ms'),
    ],
)
def test_what_is_no_good_table(table, tmp_path, change, message):
    path = tmp_path / 'table.json'
    save_table(table, path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=message) as error:
        load_table(path)
    assert 'table.json' in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'content', [b'', b'[1, 2]', b'{"schema": 1', b'\xff\xfe\x00', b'7']
)
def test_what_is_no_table_at_all(tmp_path, content):
    path = tmp_path / 'table.json'
    path.write_bytes(content)
    with pytest.raises(UsageError, match='damaged|not a query table'):
        load_table(path)


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match='cannot be read: No such file'):
        load_table(tmp_path / 'table.json')


def test_other_paths_are_not_tables(tmp_path):
    """The error says where the table is."""
    (tmp_path / 'adaptive.pth').write_bytes(b'PK')
    with pytest.raises(UsageError, match='name the table.json in it'):
        load_table(tmp_path)
    with pytest.raises(UsageError, match='name the table.json beside it'):
        load_table(tmp_path / 'adaptive.pth')
