"""projects/warm_start.py: its plan, and the first runs of it."""

from pathlib import Path

import pytest
import torch

pytest.importorskip('mmpretrain')
pytest.importorskip('sklearn')
PROJECTS = Path(__file__).parents[1] / 'projects'


@pytest.fixture
def module(monkeypatch, enter_scope):
    enter_scope('mmpretrain')
    monkeypatch.chdir(PROJECTS.parent)
    monkeypatch.syspath_prepend(str(PROJECTS))
    import warm_start

    return warm_start


def test_the_plan_and_its_first_runs(module, tmp_path, monkeypatch):
    """A stock network, which is sorted; then what starts from it."""
    monkeypatch.setattr(module, 'EPOCHS', 1)
    monkeypatch.setattr(module, 'SUBNETS', ('1.0x-16', '0.5x-12'))
    study = module.WarmStart(tmp_path)
    runs = study.planned()
    waiting = 3 * (3 + 2 * 3)  # seeds, tests and short trainings
    assert len(runs) == 3 * (2 + 3 + 2 * 4) and runs.count(None) == waiting
    stock = module.Run('stock', 1, 0.1, 0)
    assert runs[0] == stock
    assert study._do(stock, 39, 39)
    assert [*study.result(stock).values()][0] > 5  # percent
    started = [run for run in study.planned() if run is not None]
    assert len(started) == len(runs) - waiting + 9
    files = {
        name: torch.load(tmp_path / f'{name}_seed0.pth', weights_only=False)
        for name in module.STARTS
    }
    weights = [
        file['state_dict']['backbone.conv1.weight'] for file in files.values()
    ]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    found = []
    for start in module.STARTS:
        run = module.Run(start, 0, 0.0, 0)
        study._do(run, 39, 38)
        found.append({str(s): v for s, v in study.result(run).items()})
    full = [result['1.0x-16'] for result in found]
    assert (
        full == [full[0]] * 3 and full[0] == [*study.result(stock).values()][0]
    )
    assert found[0].keys() == {'1.0x-16', '0.5x-12'}
    cfg = study.config(module.Run('bn', 5, 0.03, 0), tmp_path)
    assert cfg.load_from == str(tmp_path / 'bn_seed0.pth')
    assert cfg.optim_wrapper.optimizer.lr == 0.03
    assert (
        study.config(module.Run('scratch', 5, 0.1, 0), tmp_path).get(
            'load_from'
        )
        is None
    )
