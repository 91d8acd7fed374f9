"""Options beyond the paper in whole runs: stopped and continued, on ranks."""

import pytest
import torch
from mmengine_versions import needs_skipped_data

from mutualnet_mm import UsageError

RUNS = {
    'all of one teacher': dict(
        start=0.3, teacher='next', label_weight=0.5, stratified=True
    ),
    'average': dict(teacher='ema', divergence='alpha', start=0.2),
    'start, after the stop': dict(start=0.7, weights='width'),
    'norms': dict(norm='per-resolution', teacher='next'),
    'norms, average': dict(norm='per-resolution', teacher='ema'),
}


@needs_skipped_data
@pytest.mark.parametrize('name', RUNS)
def test_a_resumed_run_is_the_uninterrupted_one(train, tmp_path, name):
    """With the average that is evaluated, as well."""
    hooks = [dict(type='EMAHook', momentum=0.3)] * ('average' in name)
    whole = train(RUNS[name], hooks=hooks)
    alone = sum(not logged for logged in whole.logged)
    assert alone == round(6 * RUNS[name].get('start', 0))
    file = str(tmp_path / 'work' / 'iter_3.pth')
    rest = train(RUNS[name], file, hooks=hooks)
    assert len(whole.states) == 6 and len(rest.states) == 3
    assert rest.logged == whole.logged[3:]
    for key, value in whole.states[-1].items():
        assert torch.equal(value, rest.states[-1][key]), key


def test_a_new_training_begins_a_new_average(train, tmp_path):
    """The checkpoint that it loads has the average of another one."""
    options = dict(teacher='ema')
    train(options)
    file = str(tmp_path / 'work' / 'iter_6.pth')
    content, found = torch.load(file, weights_only=False), []
    for kept in (True, False):
        notes = content['state_dict']._metadata['']
        assert 'averaged_teacher' in notes
        if not kept:
            del notes['averaged_teacher']
        torch.save(content, tmp_path / 'start.pth')
        found.append(train(options, None, start=str(tmp_path / 'start.pth')))
    for key, value in found[0].states[-1].items():
        assert torch.equal(value, found[1].states[-1][key]), key
    with pytest.raises(UsageError, match='no average of the weights'):
        train(options, str(tmp_path / 'start.pth'), max_iters=9)
