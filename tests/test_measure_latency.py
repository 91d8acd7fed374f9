"""The tool that measures an adaptive file on the device at hand."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import adaptive_networks as nets
import cv2
import numpy as np
import pytest
import torch

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveFile, AdaptiveModel
from mutualnet_mm.query_table import (
    Latency,
    QueryTable,
    load_table,
    save_csv,
    save_table,
    table_to_dict,
)

ROOT = Path(__file__).parents[1]
SUBNETS = nets.KINDS['classifier'][1]
_made = []


@pytest.fixture
def folder(request, tmp_path, monkeypatch):
    """As ``build_table`` leaves it; the current one."""
    if not _made:
        _made.append(nets.adaptive_file('classifier', request))
    _made[0].save(tmp_path / 'adaptive.pth')
    save_table(_made[0].table, tmp_path / 'table.json')
    save_csv(_made[0].table, tmp_path / 'table.csv')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tool():
    spec = spec_from_file_location('tool', ROOT / 'tools/measure_latency.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, folder, monkeypatch):
    """Run the tool in this process."""
    threads = torch.get_num_threads()

    def run(options='', path='adaptive.pth'):
        command = ['measure_latency.py', path, *options.split()]
        monkeypatch.setattr(sys, 'argv', command)
        tool.main()

    yield run
    torch.set_num_threads(threads)


def table_of(folder):
    """The table of the file, which is also the one beside it."""
    table = AdaptiveFile.load(folder / 'adaptive.pth').table
    beside = load_table(folder / 'table.json')
    assert table_to_dict(beside) == table_to_dict(table)
    return table


@pytest.mark.subprocess
def test_several_devices_in_one_table(folder, run):
    """As from the shell, and then with other settings."""
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / 'tools/measure_latency.py')),
            *('adaptive.pth', '--threads', '1', '--batch-size', '2'),
            *('--repeats', '2'),
        ],
        env=dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS='ignore'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '4 of 4 subnets measured' in done.stdout
    assert 'cpu-t1-b2' in done.stdout and '(threads: 1)' in done.stdout
    # Bars are for those who watch; OneDL's mmpretrain has this to say.
    assert {*done.stderr.splitlines()} <= {'Could not import OneDL'}
    first = table_of(folder)
    assert first.devices == ['cpu-t1-b2']

    cv2.imwrite('a.png', np.zeros((32, 32, 3), np.uint8))
    run('--threads 1 --static --repeats 1 --inputs a.png')
    run('--name laptop --repeats 1 --threads 1')
    table = table_of(folder)
    assert table.devices == ['cpu-t1-b2', 'cpu-t1-b1-static', 'laptop']
    for before, entry in zip(first.entries, table.entries):
        assert set(entry.latency_ms) == set(table.devices)
        assert entry.latency_ms['cpu-t1-b2'] == before.latency_ms['cpu-t1-b2']
        for latency in entry.latency_ms.values():
            assert 0 < latency.median <= latency.p90
    rows = list(csv.DictReader((folder / 'table.csv').open()))
    medians = [entry.latency_ms['laptop'].median for entry in table.entries]
    assert [
        float(row['latency_ms/laptop/median']) for row in rows
    ] == pytest.approx(medians, rel=1e-6)
    # What was measured is a budget from now on.
    net = AdaptiveModel.from_file('adaptive.pth')
    assert str(net.set_budget(latency_ms=1e6, device='laptop')) == SUBNETS[0]


def test_what_is_shown(tool, run, monkeypatch, capsys):
    """The Pareto set: the third subnet is slower and worse."""
    figures = [(8, 9), (4, 5), (6, 7), (2, 3)]

    def measure(net, batch_size, repeats, images, track, **more):
        assert more == dict(throughput=[], energy=False)
        assert (batch_size, repeats, images) == (3, 9, ['a.png'])
        assert net.static_subnets == [net.current]
        return {
            entry.subnet: Latency(*map(float, pair))
            for entry, pair in zip(net.table.entries, figures)
        }

    monkeypatch.setattr(tool, 'measure_latencies', measure)
    run('--threads 2 --batch-size 3 --repeats 9 --inputs a.png --static')
    lines = capsys.readouterr().out.splitlines()
    title = ' '.join(' '.join(lines[:2]).split())
    assert title.startswith('cpu-t2-b3-static: ')
    assert '(threads: 2)' in title
    rows = [line.split('│')[1:-1] for line in lines if '│' in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [SUBNETS[3], '2.00', '3.00', '0.00', '87'],
        [SUBNETS[1], '4.00', '5.00', '0.00', '89'],
        [SUBNETS[0], '8.00', '9.00', '0.00', '90'],
    ]
    assert 'accuracy/top1' in ' '.join(lines) and 'p90' in ' '.join(lines)


def test_what_else_is_shown_and_kept(tool, folder, run, monkeypatch, capsys):
    figures = [(8, 9, 125.5, 1, 40), (4, 5, 2250, 16, 20.25), (6, 7), (2, 3)]

    def measure(net, *args, track, **more):
        assert more == dict(throughput=[8, 16], energy=True)
        return {
            entry.subnet: Latency(*numbers)
            for entry, numbers in zip(net.table.entries, figures)
        }

    monkeypatch.setattr(tool, 'measure_latencies', measure)
    monkeypatch.setenv('COLUMNS', '120')
    run('--name here --throughput 8 16 --energy')
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if 'median' in line][0]
    assert 'images/s' in heads and 'mJ an image' in heads
    rows = [line.split('│')[1:-1] for line in lines if '│' in line]
    assert [[cell.strip() for cell in row[3:6]] for row in rows] == [
        ['-', '-', '-'],
        ['2,250.0', '16', '20.2'],
        ['125.5', '1', '40.0'],
    ]
    net = AdaptiveModel.from_file('adaptive.pth')
    assert table_of(folder).devices == ['here']
    for budgets, subnet in (
        (dict(energy_mj=30), SUBNETS[1]),
        (dict(images_per_second=100), SUBNETS[0]),
        (dict(images_per_second=126), SUBNETS[1]),
        (dict(p90_ms=4), SUBNETS[3]),
    ):
        assert str(net.set_budget(**budgets)) == subnet
    with pytest.raises(UsageError, match='least is energy_mj=20.25 of 0.5x'):
        net.set_budget(energy_mj=20)


def test_throughput_in_parts(folder, run):
    """Kept with each figure, and parts without it are refused."""
    options = '--name here --repeats 1 --threads 1 --shard'
    run(f'--throughput 2 {options} 1/2')
    with pytest.raises(SystemExit, match='part-1-of-2.*another throughput'):
        run(f'{options} 2/2')
    run(f'--throughput 2 {options} 2/2')
    for entry in table_of(folder).entries:
        latency = entry.latency_ms['here']
        assert latency.best_batch in (1, 2)
        rate = latency.images_per_second
        assert rate >= 1000 / latency.median - 1e-6


def test_parts(folder, run, capsys, monkeypatch):
    """Each keeps what it measured; the last one writes what all have."""
    before = (folder / 'adaptive.pth').read_bytes()
    options = '--name here --repeats 1 --threads 1 --shard'
    run(f'{options} 2/3')
    assert 'part 2/3 is measured, others are not' in capsys.readouterr().out
    runs = interrupt(monkeypatch, after=4 + 1)  # in the second subnet
    with pytest.raises(SystemExit, match='interrupted: the same command goes'):
        run(f'{options} 3/3')
    monkeypatch.undo(), monkeypatch.chdir(folder)
    assert (folder / 'adaptive.pth').read_bytes() == before
    # The first of its two is there; now as a launcher says it.
    predict, count = AdaptiveModel.predict, []
    monkeypatch.setattr(
        AdaptiveModel,
        'predict',
        lambda *args: (count.append(1), predict(*args))[1],
    )
    for rank, calls in (('0', 4), ('1', 0), ('2', 4)):
        monkeypatch.setenv('WORLD_SIZE', '3')
        monkeypatch.setenv('RANK', rank)
        count.clear()
        run(options.replace('--shard', ''))
        assert len(count) == calls
    assert len(runs) == 5
    assert '4 of 4 subnets measured' in capsys.readouterr().out
    table = table_of(folder)
    assert all(set(e.latency_ms) == {'here'} for e in table.entries)
    # Measured again, it begins anew.
    count.clear()
    run(f'{options} 2/3')
    assert len(count) == 4 and table_of(folder).entries == table.entries


def test_parts_of_something_else(folder, run):
    """Refused before any work, not when all have finished."""
    options = '--name here --repeats 1 --threads 1 --shard'
    run(f'{options} 1/2')
    for other, what in (('--static', 'static'), ('--batch-size 2', 'batch')):
        with pytest.raises(SystemExit, match=f'part-1-of-2.*another {what}'):
            run(f'{other} {options} 2/2')
    with pytest.raises(SystemExit, match='5 parts of 4 subnets: use at most'):
        run(f'{options} 5/5')


def test_names_say_what_figures_depend_on(tool, monkeypatch):
    """Of GPUs the model, since every machine has a first one."""
    monkeypatch.setattr(
        torch.cuda, 'get_device_name', lambda device: f'GPU H{device} (80 GB)'
    )
    args = SimpleNamespace(batch_size=8, static=False)
    threads = torch.get_num_threads()
    name = tool.default_name(args, torch.device('cpu'))
    assert name == f'cpu-t{threads}-b8'
    args.static = True
    name = tool.default_name(args, torch.device('cuda', 1))
    assert name == 'GPU-Hcuda-1-80-GB-b8-static'


def interrupt(monkeypatch, after):
    """Press Ctrl-C in a certain run of the network."""
    predict, runs = AdaptiveModel.predict, []

    def predict_until(self, *batch):
        if len(runs) == after:
            raise KeyboardInterrupt
        runs.append(1)
        return predict(self, *batch)

    monkeypatch.setattr(AdaptiveModel, 'predict', predict_until)
    return runs


def test_interruption_keeps_what_is_finished(folder, run, monkeypatch, capsys):
    interrupt(monkeypatch, after=2 * (3 + 1) + 2)
    with pytest.raises(SystemExit) as caught:
        run('--name here --repeats 1')
    assert str(caught.value) == (
        "interrupted: 2 of 4 subnets were measured, which 'adaptive.pth' "
        "keeps as 'here': measure again for all of them"
    )
    lines = capsys.readouterr().out.splitlines()
    assert SUBNETS[0] in ' '.join(lines) and 'measured' not in lines[-1]
    measured = [bool(e.latency_ms) for e in table_of(folder).entries]
    assert measured == [True, True, False, False]


def test_interruption_before_the_first(folder, run, monkeypatch):
    interrupt(monkeypatch, after=3)
    before = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(SystemExit, match='before the first subnet'):
        run('--repeats 1')
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_figures_that_cannot_be_kept_are_shown(
    tool, folder, run, monkeypatch, capsys
):
    """Another network took the file's place; the figures are not lost."""
    table = _made[0].table
    entries = [replace(table.entries[0], metrics={}), *table.entries[1:]]
    table = QueryTable(entries, table.metric, table.task, table.full)
    replace(_made[0], table=table).save('adaptive.pth')

    def measure(net, *args, **settings):
        weights = {k: v + 1 for k, v in _made[0].weights.items()}
        replace(_made[0], weights=weights).save('adaptive.pth')
        return {e.subnet: Latency(5.0, 7.0) for e in net.table.entries}

    monkeypatch.setattr(tool, 'measure_latencies', measure)
    with pytest.raises(
        SystemExit, match="error: 'adaptive.pth' holds another"
    ):
        run('--name here')
    shown = capsys.readouterr().out
    assert all(subnet in shown for subnet in SUBNETS)
    assert shown.count('5.00') == len(SUBNETS) and 'measured' not in shown
    assert not AdaptiveFile.load('adaptive.pth').table.devices


def test_only_the_table_is_on_standard_output(tool, run, monkeypatch, capsys):
    def measure(net, *args, **settings):
        print('stock code says something')
        return {e.subnet: Latency(5.0, 7.0) for e in net.table.entries}

    monkeypatch.setattr(tool, 'measure_latencies', measure)
    run('--name here')
    out, err = capsys.readouterr()
    assert 'stock code' in err and 'stock code' not in out
    assert '4 of 4 subnets measured' in out


@pytest.mark.parametrize(
    'options, message',
    [
        ('--threads 0', 'error: --threads 0: use 1 or more'),
        ('--batch-size 0', 'error: batch_size=0: use a whole number from 1'),
        ('--repeats -1', 'error: repeats=-1: use a whole number from 1'),
        ('--device gpu', "error: device='gpu' cannot be used"),
        ('--inputs gone.png', "error: image 'gone.png' cannot be read"),
        ('--throughput 0', 'error: batch size of the throughput=0: use a wh'),
    ],
)
def test_options_that_are_wrong(folder, run, monkeypatch, options, message):
    runs = interrupt(monkeypatch, after=-1)
    before = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(SystemExit) as caught:
        run(options)
    assert str(caught.value).startswith(message)
    assert '\n' not in str(caught.value) and runs == []
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_files_that_are_wrong(folder, run, monkeypatch):
    runs = interrupt(monkeypatch, after=-1)
    (folder / 'half.pth').write_bytes(
        (folder / 'adaptive.pth').read_bytes()[:10_000]
    )
    for path, message in (
        ('gone.pth', "adaptive file 'gone.pth' does not exist"),
        ('half.pth', "'half.pth' is damaged, or not an adaptive.pth"),
        ('table.json', "'table.json' is damaged, or not an adaptive.pth"),
    ):
        with pytest.raises(SystemExit, match=f'error: {message}'):
            run(path=path)
    monkeypatch.setattr(os, 'access', lambda path, mode: mode != os.W_OK)
    with pytest.raises(SystemExit, match="error: 'adaptive.pth' cannot be wr"):
        run()
    assert runs == []  # before any work
