"""Two processes in one folder: one line, or files that fit together."""

import functools
import itertools
import multiprocessing
import os
import signal
import threading

import adaptive_networks as nets
import pytest
from mmengine.config import Config
from programs import run_program

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveModel, build_table
from mutualnet_mm.config import only_training
from mutualnet_mm.export import load_static, save_static
from mutualnet_mm.files import only_user

BUSY = 'another process works in .*: wait until it has ended, or name another'


def hold(folder, ready):
    with only_user(folder):
        ready.set()
        threading.Event().wait()


@pytest.mark.subprocess
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no os.fork here')
def test_a_folder_is_free_when_its_process_has_ended(tmp_path):
    """However that is: nothing is left to be removed by hand."""
    fork = multiprocessing.get_context('fork')
    ready = fork.Event()
    other = fork.Process(target=hold, args=(tmp_path, ready))
    other.start()
    assert ready.wait(60)
    refused = pytest.raises(UsageError, match=BUSY)
    with refused as caught, only_user(tmp_path, wait=0.1):
        raise AssertionError('the block was entered')
    assert str(tmp_path) in str(caught.value)
    os.kill(other.pid, signal.SIGKILL)
    other.join(60)
    with only_user(tmp_path, wait=30):
        again = only_user(tmp_path, wait=0.1)  # a second one of its own
        with pytest.raises(UsageError, match=BUSY), again:
            pass
    with pytest.raises(ZeroDivisionError), only_user(tmp_path, wait=0.1):
        raise ZeroDivisionError
    with only_user(tmp_path, wait=0.1):
        pass


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(self, **settings):
        raise NotImplementedError('flock')

    monkeypatch.setattr('mutualnet_mm.files.FileLock.acquire', refuse)
    with only_user(tmp_path), only_user(tmp_path):
        pass


@pytest.fixture
def impatient(monkeypatch):
    """Nobody waits for processes that were killed."""
    quick = functools.partial(only_user, wait=0.1)
    for module in ('apis.measurement', 'config.runner'):
        monkeypatch.setattr(f'mutualnet_mm.{module}.only_user', quick)


def test_two_tables(impatient, make_config, checkpoint, tmp_path):
    out = tmp_path / 'out'
    (out / 'progress').mkdir(parents=True)
    subnets = ['1.0x-32']
    with only_user(out / 'progress'):
        with pytest.raises(UsageError, match=BUSY):
            build_table(make_config(), checkpoint, out, subnets=subnets)
        assert not (out / 'progress/results.json').exists()
    build_table(make_config(), checkpoint, out, subnets=subnets)
    assert (out / 'adaptive.pth').exists()


def test_two_trainings(impatient, make_config, tmp_path):
    cfg = make_config(
        work_dir=str(tmp_path / 'runs'), train_cfg=dict(max_iters=1)
    )
    path = tmp_path / 'a.py'
    path.write_text(cfg.pretty_text)
    with only_training(cfg):
        done = run_program('tools/train.py', path)
        assert done.returncode == 1 and 'Traceback' not in done.stderr
        assert 'another process works in' in done.stderr
        assert done.stderr.count('\n') == 1
        # Nothing of the first one is touched.
        assert [p.name for p in (tmp_path / 'runs').iterdir()] == ['.lock']


@pytest.mark.parametrize(
    'launcher, variable',
    [
        ('pytorch', 'RANK'),
        ('slurm', 'SLURM_PROCID'),
        ('mpi', 'OMPI_COMM_WORLD_RANK'),
    ],
)
def test_processes_of_one_training_share(
    launcher, variable, impatient, monkeypatch, tmp_path
):
    cfg = Config(dict(work_dir=str(tmp_path), launcher=launcher))
    monkeypatch.setenv(variable, '0')
    with only_training(cfg):
        for rank in '123':
            monkeypatch.setenv(variable, rank)
            with only_training(cfg):
                pass
        monkeypatch.setenv(variable, '0')
        with pytest.raises(UsageError, match=BUSY), only_training(cfg):
            pass


def test_two_exports(request, tmp_path):
    """Of each, one file is the last: they fit together, or one line says."""
    net = AdaptiveModel(nets.adaptive_file('classifier', request))
    subnets = nets.KINDS['classifier'][1][1:3]
    pairs = [save_static(net, s, tmp_path / f'{s}.pth') for s in subnets]
    for weights, config in itertools.product(*zip(*pairs)):
        (tmp_path / 'a.pth').write_bytes(weights.read_bytes())
        (tmp_path / 'a.py').write_bytes(config.read_bytes())
        if weights.stem == config.stem:
            assert str(load_static(tmp_path / 'a.pth').subnet) == weights.stem
            continue
        with pytest.raises(UsageError, match='files of one export side by si'):
            load_static(tmp_path / 'a.pth')
