import pytest
import torch

from mutualnet_mm import UsageError
from mutualnet_mm.query_table.answers import Answers
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


def made_answers(number=5):
    truth = torch.arange(number, dtype=torch.int32)
    return Answers(truth, truth % 2 == 0, torch.rand(number))


def test_answers_come_back(tmp_path):
    progress = Progress(tmp_path, SETTINGS)
    assert progress.answers == {}
    kept = made_answers()
    progress.keep_answers('0.5x-32', kept)
    assert progress.answers == {}  # of no finished subnet
    progress.add('0.5x-32', {'top1': 0.1})
    progress.add('1.0x-64', {'top1': 0.1})  # none were kept
    progress.finish()
    found = Progress(tmp_path, SETTINGS).answers
    assert list(found) == ['0.5x-32']
    for name, value in vars(kept).items():
        assert torch.equal(getattr(found['0.5x-32'], name), value)
    # They are those of the checkpoint.
    other = Progress(tmp_path, dict(SETTINGS, checkpoint='cd'))
    other.add('0.5x-32', {'top1': 0.1})
    assert other.answers == {}


def test_damaged_answers_cost_no_results(tmp_path):
    progress = Progress(tmp_path, SETTINGS)
    for name in ('0.5x-32', '1.0x-64', '0.75x-32'):
        progress.keep_answers(name, made_answers())
        progress.add(name, {'top1': 0.1})
    file = tmp_path / 'answers/0.5x-32.pth'
    file.write_bytes(file.read_bytes()[:-100])
    torch.save({'truth': torch.zeros(3)}, tmp_path / 'answers/1.0x-64.pth')
    again = Progress(tmp_path, SETTINGS)
    assert list(again.answers) == ['0.75x-32'] and len(again.results) == 3
