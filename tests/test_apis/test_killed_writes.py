"""Tables, exports and latencies whose process is killed as it writes them.

``pytest tests/test_apis/test_killed_writes.py -m nightly``: at every file.
"""

import functools
import os

import adaptive_networks as nets
import pytest
from killed import run_killed

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveFile, AdaptiveModel, build_table
from mutualnet_mm.deploy import save_latencies
from mutualnet_mm.export import load_static, save_static
from mutualnet_mm.files import atomic_write
from mutualnet_mm.query_table import Latency, load_table

pytestmark = [
    pytest.mark.subprocess,
    pytest.mark.skipif(not hasattr(os, 'fork'), reason='no os.fork here'),
]
SUBNETS = ['1.0x-32', '0.5x-16', '0.25x-16']
# Before a file is written, in the middle, when it is whole, behind it.
SHARES = (0, 0.5, 1, 2)


@pytest.mark.parametrize('share', SHARES)
@pytest.mark.parametrize('old', [None, b'old'])
def test_a_file_is_there_whole_or_not_at_all(tmp_path, old, share):
    path = tmp_path / 'table.json'
    if old is not None:
        path.write_bytes(old)

    def write():
        with atomic_write(path) as file:
            file.write(b'new')

    assert run_killed(write, ('write', 0, share))
    expected = b'new' if share == 2 else old
    assert (path.read_bytes() if path.exists() else None) == expected
    write()
    assert path.read_bytes() == b'new'


def numbers(bank):
    return {
        (subnet, layer, i): value.tolist()
        for subnet, layers in bank.items()
        for layer, pair in layers.items()
        for i, value in enumerate(pair)
    }


def contents(out):
    """What a table's folder holds, as values to compare."""
    file = AdaptiveFile.load(out / 'adaptive.pth')
    assert load_table(out / 'table.json').entries == file.table.entries
    return (
        (out / 'table.json').read_bytes(),
        (out / 'table.csv').read_bytes(),
        (out / 'curve.png').stat().st_size > 0,
        {k: v.tolist() for k, v in file.weights.items()},
        numbers(file.statistics),
    )


@pytest.fixture(scope='module')
def whole():
    """Files of a table that nothing interrupted."""
    return {}


@pytest.fixture
def kill_table(make_config, checkpoint, tmp_path, whole):
    """Build a table that is killed at a file of so many, and go on."""

    def build(out):
        cfg = make_config()
        cfg.test_cfg.group_size = 2
        build_table(cfg, checkpoint, out, subnets=SUBNETS)

    if not whole:
        out = tmp_path / 'whole'
        build(out)
        whole['files'] = contents(out)

    def kill(at, share):
        out = tmp_path / f'{at}-{share}'
        killed = run_killed(
            functools.partial(build, out), ('write', at, share)
        )
        run_killed(functools.partial(build, out))
        assert contents(out) == whole['files'], (at, share)
        return killed

    return kill


@pytest.mark.parametrize('at, share', [(1, 0.5), (3, 2), (6, 0)])
def test_a_table(kill_table, at, share):
    assert kill_table(at, share)


@pytest.mark.nightly
@pytest.mark.parametrize('share', SHARES)
def test_a_table_at_every_file(kill_table, share):
    at = 0
    while kill_table(at, share):
        at += 1
    print(f'\nkilled at each of {at} files, share {share}')
    assert at > 8


@pytest.mark.parametrize('share', SHARES)
@pytest.mark.parametrize('at', [0, 1])
def test_an_export(request, tmp_path, at, share):
    """A pair of files of two exports is refused, and written again."""
    net = AdaptiveModel(nets.adaptive_file('classifier', request))
    old, new = nets.KINDS['classifier'][1][1:3]
    path = tmp_path / 'a.pth'
    save_static(net, old, path)
    write = functools.partial(save_static, net, new, path)
    assert run_killed(write, ('write', at, share))
    try:
        found = str(load_static(path).subnet)
    except UsageError as error:
        assert 'files of one export side by side' in str(error)
        assert (at, share) in [(0, 2), (1, 0), (1, 0.5), (1, 1)]
    else:
        assert found == (new if (at, share) == (1, 2) else old)
    write()
    assert str(load_static(path).subnet) == new


@pytest.mark.parametrize('share', SHARES)
def test_latencies(request, tmp_path, share):
    """The adaptive file and the lock beside it are as they were, or new."""
    file = nets.adaptive_file('classifier', request)
    path = tmp_path / 'adaptive.pth'
    file.save(path)
    found = {e.subnet: Latency(1.0, 2.0) for e in file.table.entries}
    write = functools.partial(
        save_latencies, path, 'phone', found, file.weights
    )
    assert run_killed(write, ('write', 0, share))
    devices = AdaptiveFile.load(path).table.devices
    assert ('phone' in devices) == (share == 2)
    write()
    assert 'phone' in AdaptiveFile.load(path).table.devices
