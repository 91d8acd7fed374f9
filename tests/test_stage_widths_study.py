"""projects/stage_widths.py: its plan, a small run of it, and its table."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mutualnet_mm import Subnet
from mutualnet_mm.query_table import load_table

pytest.importorskip('mmpretrain')
pytest.importorskip('sklearn')
PROJECTS = Path(__file__).parents[1] / 'projects'


@pytest.fixture
def module(monkeypatch, enter_scope):
    enter_scope('mmpretrain')
    monkeypatch.syspath_prepend(str(PROJECTS))
    import stage_widths

    few = partial(stage_widths.make_cluttered_digits, num_train=64, num_val=20)
    monkeypatch.setattr(stage_widths, 'make_cluttered_digits', few)
    monkeypatch.setattr(stage_widths, 'NUM_SEARCHED', 2)
    monkeypatch.setattr(stage_widths, 'FIRST_STEP', 0.75)
    monkeypatch.setattr(stage_widths, 'BUDGETS', np.array([3e5, 2e6, 8e6]))
    return stage_widths


@pytest.fixture
def study(module, monkeypatch, tmp_path):
    study = module.StageWidths(tmp_path)
    config = study.config

    def short(run, folder):
        cfg = config(run, folder)
        cfg.train_cfg.max_epochs = 2
        return cfg

    monkeypatch.setattr(study, 'config', short)
    return study


def test_plan(study):
    plan = study.planned()
    assert [(run.stages, run.seed) for run in plan] == [
        (stages, seed) for seed in range(3) for stages in (1, 3)
    ]


def test_images_that_choose_do_not_judge(study, module, tmp_path):
    """Two tables choose on ten images, what they chose meets the others."""
    run = module.Run(3, 0)
    assert study._do(run, 6, 6)
    folder = tmp_path / 'runs/stages3_seed0'
    tables = {
        name: load_table(folder / name / 'table.json')
        for name in ('grid', 'searched', 'judged')
    }
    assert {table.num_images for table in tables.values()} == {10}
    # 16 widths at three resolutions; two of them, and two that were searched.
    assert [len(tables[name].entries) for name in tables][:2] == [48, 8]
    result = study.result(run)
    for name in ('grid', 'searched'):
        assert {*module.choices(tables[name])} <= {*result}
    assert Subnet.parse('0.5x-24') in result  # of the config
    assert study.report() == 'no pair of runs is finished'
    cfg = study.config(run, folder)
    choosing, judging = (
        half.test_dataloader.dataset.indices for half in module.halves(cfg, 20)
    )
    assert sorted([*choosing, *judging]) == [*range(20)]
    assert 'indices' not in cfg.test_dataloader.dataset


def test_report(study, module, monkeypatch):
    """Gains are those of the same seeds over each other."""

    class Table:
        def __init__(self, name):
            self.name = name

        def best(self, macs):
            width = 1.0 if macs > 7e6 else 0.5
            searched = self.name == 'searched' and macs < 7e6
            subnet = Subnet.parse(
                '0.5-0.5-0.75x-32' if searched else f'{width}x-32'
            )
            return type('Entry', (), dict(subnet=subnet))

    monkeypatch.setattr(
        module, 'load_table', lambda file: Table(file.parent.name)
    )
    values = {'1.0x-32': 80.0, '0.5x-32': 60.0, '0.5-0.5-0.75x-32': 66.0}

    def result(run):
        if run.seed == 2:
            return None
        more = run.seed + (run.stages > 1)
        return {Subnet.parse(n): value + more for n, value in values.items()}

    monkeypatch.setattr(study, 'result', result)
    rows = [
        [cell.strip() for cell in line.split('|')][1:-1]
        for line in study.report().splitlines()
    ]
    assert rows[3] == [
        *('2.00', '60.5 ± 0.7 (n=2)', '61.5 ± 0.7 (n=2)'),
        *('67.5 ± 0.7 (n=2)', '+1.0 ± 0.0', '+6.0 ± 0.0', '+7.0 ± 0.0'),
    ]
    # Of 60, 60, 80 and of 66, 66, 80.
    assert rows[5][-3:] == ['+1.0 ± 0.0', '+4.0 ± 0.0', '+5.0 ± 0.0']
