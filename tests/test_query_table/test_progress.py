import pytest
import torch

from mutualnet_mm import UsageError
from mutualnet_mm.query_table.progress import Progress

SETTINGS = {'checkpoint': 'ab', 'number of images': 8}


def test_results_and_statistics_come_back(tmp_path):
    progress = Progress(tmp_path / 'new' / 'folder', SETTINGS)
    assert progress.results == {} and progress.statistics == {}
    bank = {'0.5x-32': {'bn': (torch.rand(3), torch.rand(3))}}
    progress.keep_statistics(bank)
    progress.add('0.5x-32', {'top1': 0.1, 'top5': None})
    progress.add('1.0x-64', {})
    again = Progress(tmp_path / 'new' / 'folder', SETTINGS)
    assert again.results == {
        '0.5x-32': {'top1': 0.1, 'top5': None},
        '1.0x-64': {},
    }
    mean, variance = again.statistics['0.5x-32']['bn']
    assert torch.equal(mean, bank['0.5x-32']['bn'][0])
    assert torch.equal(variance, bank['0.5x-32']['bn'][1])


def test_other_settings_are_refused(tmp_path):
    Progress(tmp_path, SETTINGS).add('0.5x-32', {'top1': 0.1})
    with pytest.raises(UsageError) as error:
        Progress(tmp_path, dict(SETTINGS, checkpoint='cd'))
    assert str(error.value) == (
        f"'{tmp_path}' holds results of another checkpoint: give the same to "
        'continue, remove that folder to start over, or write elsewhere'
    )


def test_finished_ones_make_way(tmp_path):
    progress = Progress(tmp_path, SETTINGS)
    progress.keep_statistics({'0.5x-32': {}})
    progress.add('0.5x-32', {'top1': 0.1})
    progress.finish()
    assert Progress(tmp_path, SETTINGS).results == {'0.5x-32': {'top1': 0.1}}
    other = Progress(tmp_path, dict(SETTINGS, checkpoint='cd'))
    assert other.results == {} and other.statistics == {}
    other.add('0.5x-32', {'top1': 0.2})  # and is unfinished itself
    with pytest.raises(UsageError, match='another checkpoint'):
        Progress(tmp_path, SETTINGS)


def test_statistics_do_not_outlive_their_results(tmp_path):
    """They say not of which weights they are; the results do."""
    Progress(tmp_path, SETTINGS).keep_statistics({'0.5x-32': {}})
    assert Progress(tmp_path, SETTINGS).statistics
    (tmp_path / 'results.json').unlink()
    assert Progress(tmp_path, SETTINGS).statistics == {}


@pytest.mark.parametrize(
    'content',
    [
        *(b'', b'[]', b'{"settings": {}}', b'{"settings": [', b'\xff'),
        b'{"settings": {}, "results": []}',
        b'{"settings": [], "results": {}}',
        b'{"settings": {}, "results": {"1.0x-64": [1.0]}}',
    ],
)
def test_damaged_results(tmp_path, content):
    (tmp_path / 'results.json').write_bytes(content)
    with pytest.raises(UsageError, match='damaged: remove'):
        Progress(tmp_path, SETTINGS)


def test_damaged_statistics(tmp_path):
    progress = Progress(tmp_path, SETTINGS)
    progress.keep_statistics({'0.5x-32': {'bn': (torch.rand(9),) * 2}})
    file = tmp_path / 'statistics.pth'
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UsageError, match='statistics.pth.* damaged: remove'):
        _ = progress.statistics


def test_a_full_disk(tmp_path, full_disk):
    progress = Progress(tmp_path, SETTINGS)
    bank = {'0.5x-32': {'bn': (torch.rand(30_000),) * 2}}
    with full_disk(40_000), pytest.raises(UsageError, match='File too large'):
        progress.keep_statistics(bank)
    with full_disk(), pytest.raises(UsageError, match='File too large'):
        progress.add('0.5x-32', {})
    assert Progress(tmp_path, SETTINGS).results == {}
    assert progress.statistics == {}
