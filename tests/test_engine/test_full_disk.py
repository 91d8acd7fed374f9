"""A training whose disk takes no more: one line, and it goes on later."""

import errno
import os

import pytest
from programs import run_program

from mutualnet_mm import ConfigError
from mutualnet_mm.config.stock_errors import named_stock_errors

TRAIN = 'tools/train.py'


@pytest.fixture
def config(make_config, tmp_path):
    """Return the file of a training with a checkpoint of each epoch."""

    def make(epochs, **hook):
        checkpoints = dict(type='CheckpointHook', interval=1, **hook)
        cfg = make_config(
            work_dir=str(tmp_path / 'runs'),
            experiment_name='full-disk',
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            default_hooks=dict(checkpoint=checkpoints),
        )
        path = tmp_path / f'{epochs}.py'
        path.write_text(cfg.pretty_text)
        return path

    return make


@pytest.mark.parametrize('size', [0, 100_000], ids=['full', 'nearly full'])
def test_a_full_disk(config, tmp_path, full_disk, size):
    """Where the temporary copy of the config finds no room, or weights."""
    assert run_program(TRAIN, config(1)).returncode == 0
    runs = tmp_path / 'runs'
    first = (runs / 'epoch_1.pth').read_bytes()
    longer = config(2)
    with full_disk(size):
        done = run_program(TRAIN, longer, '--resume')
    assert done.returncode == 1
    assert done.stderr.startswith('error: ')
    assert 'File too large' in done.stderr
    assert done.stderr.count('\n') == 1
    assert (runs / 'epoch_1.pth').read_bytes() == first
    assert (runs / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    done = run_program(TRAIN, longer, '--resume')
    assert done.returncode == 0, done.stderr
    assert (runs / 'last_checkpoint').read_text().endswith('epoch_2.pth')


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='no /proc')
def test_a_folder_that_takes_no_files(config):
    """Before the first step, or there is nothing that could be lost."""
    done = run_program(TRAIN, config(1, out_dir='/proc/self/fd'))
    assert done.returncode == 1
    assert done.stderr.startswith('error: ') and '/proc/self' in done.stderr
    assert done.stderr.count('\n') == 1


@pytest.mark.parametrize(
    'code, name, text',
    [
        (errno.ENOSPC, None, 'a file cannot be written: No space left'),
        (errno.EROFS, 'a/b.pth', "'a/b.pth' cannot be written: Read-only"),
        (errno.EACCES, 'a.pth', "'a.pth' cannot be opened: Permission"),
    ],
)
def test_errors_of_disks(code, name, text):
    with pytest.raises(ConfigError) as caught, named_stock_errors():
        raise OSError(code, os.strerror(code), name)
    assert str(caught.value).startswith(text)
    with pytest.raises(OSError, match='Interrupted'), named_stock_errors():
        raise OSError(errno.EINTR, os.strerror(errno.EINTR))
