"""projects/distill_detector.py: its plan, a run of it, and its table."""

from functools import partial
from pathlib import Path

import pytest

from mutualnet_mm import Subnet

pytest.importorskip('mmdet')
pytest.importorskip('sklearn')
PROJECTS = Path(__file__).parents[1] / 'projects'


@pytest.fixture
def study(monkeypatch, tmp_path, enter_scope):
    enter_scope('mmdet')
    monkeypatch.syspath_prepend(str(PROJECTS))
    import distill_detector as module

    few = partial(module.make_digit_scenes, num_train=8)
    monkeypatch.setattr(module, 'make_digit_scenes', few)
    monkeypatch.setattr(module, 'NUM_TEST', 2)
    return module.Distillation(tmp_path, epochs=2)


def differences(one, other, path=''):
    """Where two configs differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in {*one, *other}:
            found += differences(
                one.get(key), other.get(key), f'{path}.{key}'.strip('.')
            )
        return found
    return [] if one == other else [path]


def test_pairs_differ_in_distillation_alone(study, tmp_path):
    plan = study.planned()
    assert [(run.distill, run.seed) for run in plan] == [
        (weight, seed) for seed in range(3) for weight in (0.0, 10.0)
    ]
    plain, distilled, other = (
        study.config(run, tmp_path).to_dict() for run in plan[:3]
    )
    assert differences(plain, distilled) == ['model.mutual.distill']
    assert sorted(differences(plain, other)) == [
        'model.mutual.seed',
        'randomness.seed',
    ]
    assert plain['param_scheduler'][1]['end'] == 2
    assert plain['train_cfg']['max_epochs'] == 2


def test_a_run(study, tmp_path):
    """One step of two epochs, distilled; weights and AP stay."""
    run = study.planned()[1]
    assert study._do(run, 6, 6)
    found = study.result(run)
    assert [*found] == [
        Subnet.parse(name) for name in ('1.0x-192', '0.5x-160', '0.25x-128')
    ]
    assert all(0 <= value <= 100 for value in found.values())
    assert (tmp_path / 'runs/distill10_2e_seed0/weights.pt').is_file()
    assert study.report() == 'no pair of runs is finished'


def test_report(study, monkeypatch):
    """Pairs alone count: the third one has no partner."""

    def result(run):
        if (run.distill, run.seed) == (0.0, 2):
            return None
        gain = run.distill / 10 * (run.seed + 1)
        names = ('1.0x-192', '0.5x-160', '0.25x-128')
        return {Subnet.parse(n): 40 + run.seed + gain for n in names}

    monkeypatch.setattr(study, 'result', result)
    row = study.report().splitlines()[3]
    cells = [cell.strip() for cell in row.split('|')][1:-1]
    # Student's t of one degree of freedom is 12.706: half is that by 0.5.
    assert cells == [
        *('0.5x-160', '68 M', '40.5 ± 0.7 (n=2)', '42.0 ± 1.4 (n=2)'),
        '+1.5 ± 6.4',
    ]
