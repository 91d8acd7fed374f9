"""A training that goes on with other settings than it was begun with."""

import pytest
import torch
from mmengine.registry import MODELS
from option_steps import LINEAR

from mutualnet_mm import UsageError
from mutualnet_mm.models.static import static_model


@pytest.fixture
def said(monkeypatch):
    """Lines of the log."""
    lines = []
    monkeypatch.setattr(
        'mutualnet_mm.models.resumed.print_log',
        lambda text, **settings: lines.append(text),
    )
    return lines


CHANGES = {
    'none': (dict(num_random=1), dict(num_random=1), ''),
    'a default, spelt out': (dict(num_random=2), dict(teacher='full'), ''),
    'two': (
        dict(num_random=1, teacher='next', weights=dict(rand=0.5)),
        dict(num_random=2, weights='width'),
        "num_random=1 -> 2, teacher='next' -> 'full', "
        "weights={'rand': 0.5} -> 'width'",
    ),
    'space': (
        dict(width_range=(0.25, 1.0)),
        dict(widths=(1.0, 0.5), resolution=(32, 16)),
        'width_range=(0.25, 1.0) -> None, widths=None -> (1.0, 0.5), '
        'resolution=(32, 24, 16) -> (32, 16)',
    ),
    'start': (
        dict(start=0.4),
        dict(start=0.4),
        'start=0.4 (iteration 1 of 3) -> 0.4 (iteration 2 of 4)',
    ),
    'start, taken back': (
        dict(start=0.4, supervision='label'),
        {},
        "supervision='label' -> 'kl', start=0.4 (iteration 1 of 3) -> 0.0",
    ),
}


@pytest.mark.parametrize('case', CHANGES)
def test_what_changes_is_said_once(train, said, tmp_path, case):
    before, after, changes = CHANGES[case]
    train(before, max_iters=3)
    assert not said
    file = str(tmp_path / 'work' / 'iter_3.pth')
    rest = train(after, file, max_iters=4)
    assert len(rest.states) == 1
    begin = 'training goes on at iteration 3 with other settings of mutual '
    begin += 'than the checkpoint was trained by: '
    assert said == [begin + changes] * bool(changes)


def test_weights_alone_begin_anew(train, said, tmp_path):
    train(dict(num_random=1), max_iters=3)
    file = str(tmp_path / 'work' / 'iter_3.pth')
    train(dict(norm='per-resolution'), start=file, max_iters=1)
    assert not said


def test_a_stock_training_goes_on(train, configure, said, tmp_path):
    """Its checkpoint does not say by what it was trained."""
    train({}, max_iters=3)
    file = str(tmp_path / 'work' / 'iter_3.pth')
    content = torch.load(file, weights_only=False)
    stock = MODELS.build(configure(LINEAR, stock=True))
    stock.load_state_dict(content['state_dict'])
    torch.save(dict(content, state_dict=stock.state_dict()), file)
    train({}, file, max_iters=5)
    (line,) = said
    assert 'goes on at iteration 3 from a checkpoint that does not say' in line


def test_norms_of_other_resolutions(train, tmp_path):
    """As many parameters: the optimizer would take others' momenta."""
    own = dict(norm='per-resolution')
    train(own, max_iters=3)
    file = str(tmp_path / 'work' / 'iter_3.pth')
    other = dict(own, resolution=(32, 16, 24))
    with pytest.raises(UsageError, match='norms for 32, 24, 16, the config'):
        train(other, file, max_iters=4)
    train(other, start=file, max_iters=1)


def test_plain_values(build_learner, tmp_path):
    """What is noted loads without trust, and static forms note less."""
    model = build_learner(
        weights=dict(rand=0.5), single_subnet=None, teacher='next'
    )
    file = tmp_path / 'state.pth'
    torch.save(model.state_dict(), file)
    noted = torch.load(file, weights_only=True)._metadata['']['mutual']
    assert type(noted['weights']) is dict and noted['teacher'] == 'next'
    alone = build_learner(single_subnet='0.5x-16')
    noted = alone.state_dict()._metadata['']['mutual']
    assert noted['single_subnet'] == '0.5x-16'
    static = static_model(model, '0.5x-16')
    assert 'mutual' not in static.state_dict()._metadata['']
