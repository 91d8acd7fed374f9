"""Files that are there whole or not at all, whoever writes them."""

import json
import multiprocessing
import os
import threading
import time

import pytest
import torch
from filelock import FileLock

from mutualnet_mm import UsageError, files
from mutualnet_mm.files import (
    atomic_write,
    check_target,
    only_writer,
    output_folder,
)
from mutualnet_mm.tensor_files import save_tensors


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / 'table.json'
    with atomic_write(path) as file:
        file.write(b'old')
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b'ne')
        raise KeyboardInterrupt
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]  # no draft
    with atomic_write(str(path)) as file:
        file.write(b'new')
    assert path.read_bytes() == b'new'
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_have_drafts_of_their_own(tmp_path):
    path = tmp_path / 'adaptive.pth'
    with atomic_write(path) as first:
        first.write(b'fir')
        with atomic_write(path) as second:
            second.write(b'second')
        assert path.read_bytes() == b'second'
        first.write(b'st')
    assert path.read_bytes() == b'first'
    with pytest.raises(ZeroDivisionError), atomic_write(path):
        with atomic_write(path) as second:
            second.write(b'whole')
        raise ZeroDivisionError
    assert path.read_bytes() == b'whole'
    assert list(tmp_path.iterdir()) == [path]


def test_links_and_modes_are_kept(tmp_path):
    folder = tmp_path / 'results'
    folder.mkdir()
    target, link = folder / 'table.json', tmp_path / 'latest.json'
    target.write_bytes(b'old')
    target.chmod(0o640)
    link.symlink_to(target)
    with atomic_write(link) as file:
        file.write(b'new')
    assert link.is_symlink() and target.read_bytes() == b'new'
    assert target.stat().st_mode & 0o777 == 0o640
    umask = os.umask(0o022)
    try:
        with atomic_write(folder / 'other') as file:
            file.write(b'')
    finally:
        os.umask(umask)
    assert (folder / 'other').stat().st_mode & 0o777 == 0o644


def count_to_50(path):
    for _ in range(50):
        with only_writer(path):
            number = json.loads(path.read_text())
            with atomic_write(path) as file:
                file.write(json.dumps(number + 1).encode())


@pytest.mark.subprocess
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no os.fork here')
def test_processes_that_change_one_file_wait_for_each_other(tmp_path):
    """Every change counts, as of two devices measured at once."""
    path = tmp_path / 'table.json'
    path.write_text('0')
    fork = multiprocessing.get_context('fork')
    writers = [fork.Process(target=count_to_50, args=(path,)) for _ in 'ab']
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert json.loads(path.read_text()) == 100
    with only_writer(path):
        assert path.read_text() == '100'


def test_waiting_for_another_writer_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(files, '_QUIET', 0.05)
    monkeypatch.setattr(
        files, 'print_log', lambda text, **_: said.append(text)
    )
    path = tmp_path / 'table.json'
    is_held = threading.Event()

    def hold():
        with FileLock(str(tmp_path / '.table.json.lock')):
            is_held.set()
            time.sleep(0.5)

    other = threading.Thread(target=hold)
    other.start()
    is_held.wait()
    with only_writer(path):
        other.join()
    assert len(said) == 1
    assert repr(str(path)) in said[0] and '.table.json.lock' in said[0]
    with only_writer(path):
        pass
    assert len(said) == 1


@pytest.mark.parametrize('size', [0, 40_000])
def test_a_full_disk(tmp_path, full_disk, size):
    """From the first byte on or later, in one line and without a trace."""
    path = tmp_path / 'weights.pth'
    path.write_bytes(b'old')
    refused = pytest.raises(UsageError)
    with full_disk(size), refused as caught, atomic_write(path) as file:
        save_tensors(torch.rand(100_000), file)
    expected = f'{str(path)!r} cannot be written: File too large'
    assert str(caught.value) == expected
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('write', [atomic_write, only_writer])
@pytest.mark.parametrize(
    'name, message',
    [
        ('gone/table.json', "make the folder '.*gone' first"),
        ('folder', 'it is a folder, name a file'),
        ('pipe', 'it is not an ordinary file, name another one'),
        ('/dev/null', 'it is not an ordinary file'),
        ('/dev/stdout', 'it is not an ordinary file'),
    ],
)
def test_what_is_no_file_is_refused(tmp_path, write, name, message):
    """Before the block: nothing is replaced, nothing is worked for."""
    (tmp_path / 'folder').mkdir()
    os.mkfifo(tmp_path / 'pipe')
    before = sorted(tmp_path.rglob('*'))
    path = tmp_path / name
    with pytest.raises(UsageError, match=message) as caught, write(path):
        raise AssertionError('the block was entered')
    assert str(caught.value).startswith(f'{str(path)!r} cannot be written: ')
    assert '\n' not in str(caught.value)
    assert sorted(tmp_path.rglob('*')) == before


def test_a_lock_that_cannot_be_made(tmp_path):
    path = tmp_path / 'table.json'
    path.touch()
    (tmp_path / '.table.json.lock').mkdir()
    refused = pytest.raises(UsageError, match='table.json.* cannot be writ')
    with refused, only_writer(path):
        pass


def test_a_folder_without_results_is_removed_after_an_error(tmp_path):
    (tmp_path / 'there').mkdir()
    for name, kept in (
        ('new', ['there']),
        ('a/b', ['there']),
        ('there', ['there']),
        ('there/b', ['there']),
    ):
        with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / name):
            assert (tmp_path / name).is_dir()
            raise KeyboardInterrupt
        assert [p.name for p in tmp_path.iterdir()] == kept
        assert not list((tmp_path / 'there').iterdir())
    with pytest.raises(ZeroDivisionError), output_folder(
        tmp_path / 'a/b'
    ) as out:
        (out / 'result').touch()
        raise ZeroDivisionError
    assert (tmp_path / 'a/b/result').exists()
    with output_folder(tmp_path / 'empty'):
        pass
    assert (tmp_path / 'empty').is_dir()


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='no /proc')
def test_folders_that_take_no_files_are_refused_before_the_work():
    message = "'/proc/x.json' cannot be written: no file or folder can be"
    with pytest.raises(UsageError, match=message):
        check_target('/proc/x.json')
    message = "'/proc/x/y' cannot be made: no file or folder can be made there"
    with pytest.raises(UsageError, match=message), output_folder('/proc/x/y'):
        pass
