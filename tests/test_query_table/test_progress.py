import json

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
        b'{"settings": {}, "results": {"1.0x-64": {"top1": NaN}}}',
        b'{"settings": {}, "results": {"1.0x-64": {"top1": "1"}}}',
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


@pytest.mark.parametrize(
    'statistics',
    [
        {'0.5x-32': {'bn': (torch.ones(2), torch.ones(3))}},
        {'0.5x-32': {'bn': (torch.ones(2), -torch.ones(2))}},
        {'0.5x-32': {'bn': (torch.full((2,), torch.nan), torch.ones(2))}},
        {'0.5x-32': {'bn': 'mean'}},
        {'0.5x-32': [1]},
        [1],
    ],
)
def test_what_is_no_statistics(tmp_path, statistics):
    progress = Progress(tmp_path, SETTINGS)
    progress.keep_statistics(statistics)
    for content in (statistics, dict(settings={}, statistics=statistics)):
        with pytest.raises(UsageError, match='statistics.pth.* damaged: rem'):
            _ = progress.statistics
        torch.save(content, tmp_path / 'statistics.pth')


def test_files_of_another_network(tmp_path):
    """Put into the folder by hand; names and shapes are the same."""
    bank = {'0.5x-32': {'bn': (torch.rand(3), torch.rand(3))}}
    folders = tmp_path / 'a', tmp_path / 'b'
    for folder in folders:
        progress = Progress(folder, dict(SETTINGS, checkpoint=folder.name))
        progress.keep_statistics(bank)
        progress.keep_answers('0.5x-32', made_answers())
        progress.keep_answers('1.0x-64', made_answers())
        progress.add('0.5x-32', {'top1': 0.1})
    first, second = folders
    for name in ('statistics.pth', 'answers/0.5x-32.pth'):
        (second / name).replace(first / name)
    progress = Progress(first, dict(SETTINGS, checkpoint='a'))
    with pytest.raises(UsageError, match='statistics.pth.* damaged: remove'):
        _ = progress.statistics
    assert progress.answers == {}
    answers = first / 'answers'
    (answers / '1.0x-64.pth').replace(answers / '0.5x-32.pth')
    assert progress.answers == {}  # of another subnet


def test_files_of_before_they_said_what_they_are_of(tmp_path):
    progress = Progress(tmp_path, SETTINGS)
    progress.add('0.5x-32', {'top1': 0.1})
    content = json.loads((tmp_path / 'results.json').read_text())
    assert content.pop('sha256')
    (tmp_path / 'results.json').write_text(json.dumps(content))
    bank = {'0.5x-32': {'bn': (torch.rand(3), torch.rand(3))}}
    torch.save(bank, tmp_path / 'statistics.pth')
    (tmp_path / 'answers').mkdir()
    torch.save(vars(made_answers()), tmp_path / 'answers/0.5x-32.pth')
    again = Progress(tmp_path, SETTINGS)
    assert again.results == {'0.5x-32': {'top1': 0.1}}
    assert again.statistics.keys() == bank.keys()
    assert list(again.answers) == ['0.5x-32']


def test_a_digit_that_was_changed(tmp_path):
    Progress(tmp_path, SETTINGS).add('0.5x-32', {'top1': 0.1})
    file = tmp_path / 'results.json'
    file.write_text(file.read_text().replace('0.1', '0.9'))
    with pytest.raises(UsageError, match='results.json.* damaged: remove'):
        Progress(tmp_path, SETTINGS)


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


def test_folders_of_an_earlier_release(tmp_path):
    """They do not say what their results are of, but finished ones go."""
    progress = Progress(tmp_path, SETTINGS)
    progress.add('0.5x-32', {'top1': 0.1})
    progress.finish()
    today = dict(SETTINGS, content='cd')
    with pytest.raises(UsageError, match='earlier release.* of what content'):
        Progress(tmp_path, today)
    with pytest.raises(UsageError, match='another number of images'):
        Progress(tmp_path, {**today, 'number of images': 9})
    assert Progress(tmp_path, dict(today, checkpoint='ef')).results == {}
