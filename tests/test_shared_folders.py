"""Two processes in one folder: one line, or files that fit together."""

import functools
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
from mutualnet_mm.export.export import export_subnet
from mutualnet_mm.files import only_user, only_writer

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


@pytest.mark.sweep(1)
@pytest.mark.parametrize('write', ['save_static', 'export_subnet'])
def test_two_exports(write, request, tmp_path):
    """The weights of one with the config of another would not fit."""
    net = AdaptiveModel(nets.adaptive_file('classifier', request))
    first, second = nets.KINDS['classifier'][1][1:3]
    path = tmp_path / 'a.pth'
    save_static(net, first, path)
    images = request.getfixturevalue('pictures') / 'test/0/0.png'

    def export():
        if write == 'save_static':
            save_static(net, second, path)
        else:
            export_subnet(net, second, 'static', path, inputs=str(images))

    other = threading.Thread(target=export)
    with only_writer(path):
        other.start()
        other.join(2)
        assert other.is_alive()
        assert str(load_static(path).subnet) == first
    other.join(120)
    assert not other.is_alive()
    assert str(load_static(path).subnet) == second
    assert sorted(p.name for p in tmp_path.glob('[!.]*')) == ['a.pth', 'a.py']
