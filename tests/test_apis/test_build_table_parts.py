"""Tables whose subnets several processes share."""

import contextlib
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from forked import run_forked

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveFile, build_table
from mutualnet_mm.config import launchers
from mutualnet_mm.engine import table_loop
from mutualnet_mm.files import only_user

STEP = 0.375  # a grid of 6 subnets, 3 widths x 2 resolutions
NAMES = ('table.json', 'table.csv')
FULL = 'calibrated'  # and tested in both ways
needs_fork = pytest.mark.skipif(
    not hasattr(os, 'fork'), reason='no os.fork here'
)


@pytest.fixture
def build(make_config, checkpoint, tmp_path):
    """Build a part of a table in a folder of a name."""

    def run(shard=None, out='parts', full=FULL, **settings):
        hook = dict(type='mutualnet_mm.BNCalibrationHook', full=full)
        cfg = make_config(custom_hooks=[hook], experiment_name='parts')
        arguments = dict(step=STEP, shard=shard, **settings)
        return build_table(cfg, checkpoint, tmp_path / out, **arguments)

    return run


@pytest.fixture(scope='module')
def singles():
    return {}


@pytest.fixture
def check(tmp_path, build, singles, tmp_path_factory):
    """Compare with the table of a single process, byte by byte."""

    def check(full=FULL):
        if full not in singles:
            singles[full] = tmp_path_factory.mktemp('single')
            build(out=singles[full], full=full)
        folders = tmp_path / 'parts', singles[full]
        for name in NAMES:
            found, expected = ((f / name).read_bytes() for f in folders)
            assert found == expected
        found, expected = (
            AdaptiveFile.load(folder / 'adaptive.pth') for folder in folders
        )
        assert found.config == expected.config
        assert found.statistics.keys() == expected.statistics.keys()
        for subnet, layers in expected.statistics.items():
            for name, pair in layers.items():
                own = found.statistics[subnet][name]
                assert all(map(torch.equal, own, pair))
        for name, tensor in expected.weights.items():
            assert torch.equal(found.weights[name], tensor)

    return check


def tested(score_sums):
    """Subnets, and once more the full one, that were tested so far."""
    return len(score_sums.processed) // 3  # batches of the test set


@pytest.mark.sweep(1)
@pytest.mark.parametrize('full', ['calibrated', 'running'])
def test_one_after_the_other(build, check, score_sums, full, tmp_path):
    """Each tests its part, and the last one makes the table."""
    assert build('2/3', full=full) is None
    assert build('3/3', full=full) is None
    assert tested(score_sums) == 4
    assert build('2/3', full=full) is None  # nothing is done again
    assert tested(score_sums) == 4
    assert not (tmp_path / 'parts/table.json').exists()
    table = build('1/3', full=full)
    assert len(table.entries) == 6
    assert tested(score_sums) == 6 + (full == 'calibrated')
    check(full=full)
    # What is written is known to all.
    score_sums.processed.clear()
    for shard in ('2/3', None, '1/2'):
        again = build(shard, full=full)
        assert again.entries == table.entries and not score_sums.processed


@pytest.mark.subprocess
@needs_fork
@pytest.mark.parametrize('number', [2, 4])
def test_at_the_same_time(build, check, number, tmp_path):
    """As a launcher starts them, and none waits for another."""

    def work(rank):
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(number))
        table = build(cfg_launcher(number))
        assert table is None or len(table.entries) == 6

    def cfg_launcher(number):
        return f'{int(os.environ["RANK"]) + 1}/{number}'

    run_forked(work, processes=number)
    check()


def test_the_rank_is_the_part(make_config, checkpoint, tmp_path, monkeypatch):
    """Of a launcher's processes; none of them joins a group."""
    gpus = []
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        set_device=gpus.append,
    )
    monkeypatch.setattr(launchers, 'torch', SimpleNamespace(cuda=cuda))
    monkeypatch.setenv('SLURM_NTASKS', '2')
    tables = []
    for rank in ('1', '0'):
        monkeypatch.setenv('SLURM_PROCID', rank)
        monkeypatch.setenv('SLURM_LOCALID', rank)
        monkeypatch.setenv('LOCAL_RANK', rank)  # and taken back
        cfg = make_config(launcher='slurm')
        subnets = ['1.0x-32', '0.25x-16']
        tables.append(build_table(cfg, checkpoint, tmp_path, subnets=subnets))
        assert not torch.distributed.is_initialized()
        assert cfg.launcher == 'slurm'  # the caller's
    assert tables[0] is None and len(tables[1].entries) == 2
    assert gpus == [1, 0]
    logs = sorted(p.parent.name for p in (tmp_path / 'work').glob('*/*.py'))
    assert logs == ['part-1-of-2', 'part-2-of-2']


@pytest.mark.subprocess
@needs_fork
def test_one_is_killed_and_restarted(build, check, score_sums, tmp_path):
    """Only what it had not finished is done again."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            torch.set_num_threads(1)

            def stop(processed, computed):
                if computed == 2:  # the second is about to be finished
                    os.kill(os.getpid(), signal.SIGKILL)

            score_sums.interruption = stop
            build('1/2')
        os._exit(0)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        raise AssertionError('it did not come to its second subnet')
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert build('2/2') is None
    score_sums.processed.clear()
    assert len(build('1/2').entries) == 6
    assert tested(score_sums) == 3  # of 4, the full network twice
    check()


def test_another_number_of_parts(build, check, score_sums):
    """Some were taken away: what they had finished is not lost."""
    assert build('1/6') is None and build('4/6') is None
    assert tested(score_sums) == 2 + 1
    assert len(build('1/1').entries) == 6  # all that is left, alone
    assert tested(score_sums) == 6 + 1
    check()


def test_no_part_is_forgotten(build, check, score_sums):
    """The full network is finished in one way, and not in the other."""

    def stop(processed, computed):
        if computed == 2:
            raise KeyboardInterrupt

    score_sums.interruption = stop
    with pytest.raises(KeyboardInterrupt):
        build('1/6')
    score_sums.interruption = None
    for i in range(2, 7):
        assert build(f'{i}/6') is None
    assert len(build('1/6').entries) == 6
    check()


@pytest.mark.parametrize('shard', ['2/2', None])
def test_parts_of_something_else(build, score_sums, shard):
    """Refused before any work, not when all parts have finished."""
    assert build('1/2', num_images=4) is None
    score_sums.processed.clear()
    with pytest.raises(
        UsageError, match=r"part-1-of-2' holds results of another number of"
    ):
        build(shard)
    assert not score_sums.processed


def test_more_parts_than_subnets(build):
    with pytest.raises(UsageError, match='7 parts of 6 subnets: use at most'):
        build('1/7')


def test_two_at_one_part(build, tmp_path, monkeypatch):
    monkeypatch.setattr(
        'mutualnet_mm.apis.measurement.only_user',
        lambda folder: only_user(folder, wait=0.1),
    )
    for module in (table_loop, 'mutualnet_mm.query_table.parts'):
        name = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(
            f'{name}.only_user',
            lambda folder, wait=0: only_user(folder, wait=0.1),
        )
    progress = tmp_path / 'parts/progress'
    own, whole = progress / 'part-1-of-2', progress
    own.mkdir(parents=True)
    busy = 'another process works in'
    with only_user(own):
        for shard in ('1/2', None):  # all of them is this part, too
            with pytest.raises(UsageError, match=f'{busy}.*part-1-of-2'):
                build(shard)
    with only_user(whole), pytest.raises(UsageError, match=busy):
        build('2/2')


def test_a_finished_table_makes_way(build, checkpoint, weights, tmp_path):
    """Of other weights, with its parts."""
    for shard in ('1/2', '2/2'):
        build(shard)
    weights['head.fc.bias'] += 1e-3
    torch.save(dict(state_dict=weights), checkpoint)
    assert build('1/2') is None
    assert len(build('2/2').entries) == 6
    saved = AdaptiveFile.load(tmp_path / 'parts/adaptive.pth').weights
    assert torch.equal(saved['head.fc.bias'], weights['head.fc.bias'])
