"""projects/claim_cascades.py: what chooses, what judges, and the report."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mutualnet_mm import Subnet
from mutualnet_mm.errors import UsageError
from mutualnet_mm.query_table import Cascade, QueryTable, TableEntry
from mutualnet_mm.query_table.answers import Answers

pytest.importorskip('mmpretrain')
PROJECTS = Path(__file__).parents[1] / 'projects'
SMALL, LARGE = Subnet(0.25, 10), Subnet(1.0, 16)


@pytest.fixture
def module(monkeypatch, enter_scope):
    enter_scope('mmpretrain')
    monkeypatch.syspath_prepend(str(PROJECTS))
    import claim_cascades

    return claim_cascades


@pytest.fixture
def images(tmp_path):
    """Images of two classes, as the study keeps them."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, number in (('train', 120), ('test', 60)):
        labels = np.arange(number) % 2
        bright = 60 + 120 * labels[:, None, None, None]
        noise = rng.integers(-60, 60, (number, 16, 16, 3))
        arrays[f'{split}_images'] = (bright + noise).astype(np.uint8)
        arrays[f'{split}_labels'] = labels
    path = tmp_path / 'cifar10-16px.npz'
    np.savez(path, **arrays)
    return path


def answers(right, confidence):
    return Answers(
        torch.zeros(len(right), dtype=torch.int32),
        torch.tensor(right),
        torch.tensor(confidence),
    )


def network(module, seed=0, epochs=64):
    """Four images; the cascade takes the second and third to the large one."""
    entries = [
        TableEntry(subnet, macs, 1, {'accuracy/top1': top1})
        for subnet, macs, top1 in ((LARGE, 1000, 60.0), (SMALL, 100, 50.0))
    ]
    cascade = Cascade((SMALL, LARGE), 0.5, 300.0, 1100, 'accuracy/top1', 59.0)
    table = QueryTable(
        entries,
        metric='accuracy/top1',
        task='classification',
        full=LARGE,
        cascades=[cascade],
    )
    run = module.Run('cifar10', 'mutualnet', 0.1, epochs, seed)
    given = {
        str(SMALL): answers([True, False, False, True], [0.9, 0.4, 0.2, 0.6]),
        str(LARGE): answers([False, True, False, True], [0.9, 0.9, 0.9, 0.9]),
    }
    return module.Network(run, table, given)


def test_a_cascade_is_judged_by_other_images(module):
    """By hand: right, right, wrong, right; half of them cost both."""
    made = network(module)
    judged = made.cascade(400.0)
    assert judged.choice == made.table.cascades[0]
    assert judged.right.tolist() == [True, True, False, True]
    assert judged.mean_macs == 100 + 0.5 * 1000 and judged.top1 == 75
    single = made.single(400.0)
    assert single.top1 == 50 and single.mean_macs == 100
    # A worst case that the cascade exceeds leaves the single one.
    assert made.cascade(400.0, 1000).choice.subnet == SMALL
    assert made.cascade(1000.0).choice.subnet == LARGE


def test_bootstrap(module):
    """Of many images, the interval of the normal distribution."""
    gains = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], 4000)
    low, high = module.bootstrap(gains)
    half = 1.96 * gains.std() / 4000**0.5
    assert low == pytest.approx(gains.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(gains.mean() + half, abs=0.15 * half)


def test_report(module, tmp_path, monkeypatch):
    """Means over the seeds of a length, and the figure of the main one."""
    monkeypatch.setattr(module, 'GRID', [LARGE, SMALL])
    monkeypatch.setattr(module, 'LINE', 4)
    networks = [network(module, seed) for seed in (0, 1)]
    networks += [network(module, epochs=16)]
    text = module.report(networks, tmp_path)
    assert '## cifar10, 64 epochs, seeds: 0, 1' in text
    assert text.index('16 epochs') < text.index('64 epochs')
    assert (tmp_path / 'cascade_cifar10.png').stat().st_size > 5000
    # Above the cost of the large subnet, it is the best choice itself.
    assert '| 0.00 M | 1.0x-16 | 50.0 | none is better |' in text


def test_tables_say_what_cascades_gain(module, monkeypatch):
    """At a budget where the cascade is chosen."""
    made = network(module)
    third = TableEntry(Subnet(0.5, 12), 500, 1, {'accuracy/top1': 55.0})
    table = QueryTable(
        [*made.table.entries, third],
        metric='accuracy/top1',
        task='classification',
        full=LARGE,
        cascades=made.table.cascades,
    )
    given = dict(made.answers)
    given[str(third.subnet)] = answers([False] * 3 + [True], [0.5] * 4)
    other = module.Network(made.run, table, given)
    row = module.budgets_table([other], is_limited=False).splitlines()[2]
    cells = [cell.strip() for cell in row.split('|')]
    assert cells[2:6] == ['0.5x-12', '25.0', '0.25x-10 → 1.0x-16', '75.0']
    assert cells[6].startswith('+50.0 (') and cells[7] == '+50.0 (n=1)'


def test_a_network_is_measured_once(module, images, tmp_path, monkeypatch):
    """Trained in earnest; the parts are what they should be."""
    monkeypatch.setattr(
        module,
        'PARTS',
        dict(chosen_on=('train', (40, 120)), judged_on=('test', (0, 60))),
    )
    study = module.ClaimStudy({'cifar10': images}, tmp_path)
    run = module.Run('cifar10', 'mutualnet', 0.1, 2, 0)
    monkeypatch.setattr(study, 'planned', lambda: [None, run])
    assert module.finished_runs(study) == []
    assert study._do(run, 1, 1)
    assert module.finished_runs(study) == [run]
    folder = tmp_path / 'measured'
    made = module.measured(study, run, folder)
    with np.load(images) as arrays:
        labels = arrays['test_labels']
    for subnet, found in made.answers.items():
        assert found.truth.tolist() == labels.tolist()
        told = study.result(run)['tested'][Subnet.parse(subnet)]
        assert 100 * found.right.float().mean() == pytest.approx(
            told, abs=0.01
        )
    assert made.table.num_images == 80
    # Again: nothing is tested anew. Other weights are refused.
    with monkeypatch.context() as patch:
        patch.setattr(
            'mutualnet_mm.engine.table_loop.TableLoop._run_batch', None
        )
        again = module.measured(study, run, folder)
    assert again.table.entries == made.table.entries
    study.result(run)['tested'][LARGE] += 5
    with pytest.raises(UsageError, match=r'1\.0x-16 of .* are other ones'):
        module.measured(study, run, folder)
