import pytest

from mutualnet_mm.files import atomic_write


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / 'table.json'
    with atomic_write(path) as file:
        file.write(b'old')
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b'ne')
        raise KeyboardInterrupt
    assert path.read_bytes() == b'old'
    with atomic_write(str(path)) as file:
        file.write(b'new')
    assert path.read_bytes() == b'new'
    assert list(tmp_path.iterdir()) == [path]
