"""Files that are there whole or not at all, whoever writes them."""

import json
import multiprocessing
import os

import pytest

from mutualnet_mm.files import atomic_write, only_writer


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
