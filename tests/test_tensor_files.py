"""Files of torch.save: whole, and no larger than they are."""

import io
import os
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mutualnet_mm.tensor_files import (
    check_intact,
    load_checkpoint,
    load_tensors,
    save_tensors,
    why_unread,
)

LOADERS = [load_tensors, load_checkpoint]
# Before PyTorch 2.4 weights_only takes no bytes, and tells nothing else.
SAFE = hasattr(torch.serialization, 'add_safe_globals')


@pytest.fixture
def save(tmp_path):
    def write(content, **settings):
        path = tmp_path / 'weights.pth'
        torch.save(content, path, **settings)
        return path

    return write


def content():
    return dict(
        weights=OrderedDict(a=torch.rand(8, 4), b=torch.tensor(3)),
        plain=[1, 2.5, None, 'x', (True, {'y': b'z' if SAFE else 'z'})],
    )


@pytest.mark.parametrize('load', LOADERS)
def test_round_trip(tmp_path, load):
    made, path = content(), tmp_path / 'a.pth'
    with path.open('wb') as file:
        save_tensors(made, file)
    found = load(path)
    assert torch.equal(found['weights']['a'], made['weights']['a'])
    assert found['weights']['b'] == 3 and found['plain'] == made['plain']


def test_torch_itself_reads_over_a_flipped_bit(save):
    """Why the checksums are compared here."""
    path = save(content())
    whole = path.read_bytes()
    value = torch.load(path)['weights']['a']
    at = whole.index(value.numpy().tobytes())
    damaged = bytearray(whole)
    damaged[at] ^= 1
    path.write_bytes(damaged)
    assert not torch.equal(torch.load(path)['weights']['a'], value)
    for load in LOADERS:
        with pytest.raises(zipfile.BadZipFile, match='checksum of .*data/0'):
            load(path)


def test_the_old_format_has_no_checksums(save):
    path = save(content(), _use_new_zipfile_serialization=False)
    check_intact(path)
    assert load_checkpoint(path)['plain'] == content()['plain']
    with pytest.raises(zipfile.BadZipFile):
        load_tensors(path)  # no release of ours wrote it


def test_what_a_runner_saves_besides(save):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    path = save(dict(hub=dict(loss=history), best=np.float64(0.5)))
    found = load_checkpoint(path)
    assert found['hub']['loss'].data[0].tolist() == [1.0, 2.0]
    error, message = TypeError, 'HistoryBuffer is no plain value'
    if not SAFE:
        error, message = Exception, 'HistoryBuffer'
    with pytest.raises(error, match=message):
        load_tensors(path)


def nested(depth):
    value = ['ha']
    for _ in range(depth):
        value = [value, value]
    return value


class Large:
    def __reduce__(self):
        return bytearray, (10**12,)


# Of what a few bytes would stand for.
LARGER = {
    'a view of one value': (
        lambda: torch.ones(1).expand(10**12),
        r'a tensor of shape \(1000000000000,\) in a file of',
    ),
    'sparse': (
        lambda: torch.sparse_coo_tensor([[0]], [1.0], (10**12,)),
        'layout torch.sparse_coo',
    ),
    'without values': (
        lambda: torch.empty(10**12, device='meta'),
        'without values',
    ),
    'lists of lists': (lambda: nested(60), 'more than 100000000 values'),
    'bytes': (Large, 'bytearray in'),
    'quantised': (
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        'layout' if SAFE else 'Unsupported class',
    ),
}


@pytest.mark.parametrize('case', sorted(LARGER))
@pytest.mark.filterwarnings('ignore')
def test_what_stands_for_more_than_the_file(save, case):
    make, message = LARGER[case]
    path = save(dict(weights={'a': make()}))
    assert path.stat().st_size < 10_000
    with pytest.raises(Exception, match=message):
        load_tensors(path)


def packed_again(path, change=None, **settings):
    """Write the parts of an archive anew."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(
        buffer, 'w', **settings
    ) as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if change else data)
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize('load', LOADERS)
def test_an_archive_that_unpacks_to_more(save, load):
    path = save(dict(a=torch.zeros(2**20)))
    packed_again(path, compression=zipfile.ZIP_DEFLATED)
    assert os.path.getsize(path) < 20_000
    assert load_with_torch(path)['a'].numel() == 2**20
    with pytest.raises(zipfile.BadZipFile, match='compressed'):
        load(path)


def load_with_torch(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize('load', LOADERS)
def test_a_tensor_that_declares_more_than_there_is(save, load):
    """Of 10**12 elements: refused before there is memory for them."""
    if load is load_checkpoint and not SAFE:
        pytest.skip('this PyTorch unpickles checkpoints in full')
    path = save(dict(a=torch.ones(512)))
    number = b'\x8a\x06' + (10**12).to_bytes(6, 'little')  # LONG1
    packed_again(path, lambda data: data.replace(b'M\x00\x02', number))
    message = 'size|memory|alloc' if SAFE else 'a tensor of shape'
    with pytest.raises(Exception, match=message):
        load(path)


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_a_part_that_is_there_twice(save):
    path = save(content())
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(archive.namelist()[-1], b'other')
    with pytest.raises(zipfile.BadZipFile, match='repeated'):
        load_tensors(path)


@pytest.mark.parametrize('load', LOADERS)
def test_a_part_that_is_marked_as_a_folder(save, load):
    """torch would not read it, and leave the tensor as its memory was."""
    path = save(content())
    whole = bytearray(path.read_bytes())
    entry = whole.rindex(b'PK\1\2', 0, whole.rindex(b'data/0'))
    whole[entry + 38] |= 0x10  # external attributes: of a folder in DOS
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None  # the checksums are right
    with pytest.raises(zipfile.BadZipFile, match='or folders'):
        load(path)


def test_why_a_file_that_may_not_be_read_is_unread(tmp_path, monkeypatch):
    """The error itself says it; to look for a better reason may fail, too."""
    path, error = tmp_path / 'a.pth', PermissionError(13, 'Permission denied')
    path.write_bytes(b'PK')

    def refuse(*args, **settings):
        raise error

    monkeypatch.setattr('builtins.open', refuse)
    assert why_unread(str(path), error).endswith('Permission denied')
