"""projects/warm_start.py: its plan, the first runs of it, and its report."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mutualnet_mm import Subnet
from mutualnet_mm.errors import UsageError

pytest.importorskip('mmpretrain')
pytest.importorskip('sklearn')
PROJECTS = Path(__file__).parents[1] / 'projects'
SUBNETS = ('1.0x-16', '0.5x-12')


@pytest.fixture
def modules(monkeypatch, enter_scope):
    enter_scope('mmpretrain')
    monkeypatch.syspath_prepend(str(PROJECTS))
    import warm_start_report
    import warm_start_study

    for study in (warm_start_study.Digits, warm_start_study.Cifar10):
        monkeypatch.setattr(study, 'subnets', SUBNETS)
    return warm_start_study, warm_start_report


@pytest.fixture
def claim(tmp_path, modules):
    """A folder in which the claim's study has searched its rates."""
    grid = modules[0].GRID
    folder = tmp_path / 'claim'
    folder.mkdir()
    rng = np.random.default_rng(0)
    arrays = {}
    for split, number in (('train', 64), ('test', 20)):
        arrays[f'{split}_images'] = rng.integers(
            0, 256, (number, 16, 16, 3), np.uint8
        )
        arrays[f'{split}_labels'] = np.arange(number) % 10
    np.savez(folder / 'cifar10-16px.npz', **arrays)
    lines = ['run,statistics,subnet,top1']
    for method, best in (('mutualnet', 0.3), ('alone-1.0x-16', 0.1)):
        for rate in (0.03, 0.1, 0.3, 1.0):
            run = f'cifar10_{method}_16e_lr{rate}_seed0_search'
            top1 = 60 if rate == best else 50
            lines += [f'{run},{k},1.0x-16,{top1}' for k in ('paper', 'tested')]
            # The best of them at length, on other images.
            run = f'cifar10_{method}_64e_lr{rate}_seed0'
            lines += [f'{run},held back,{s},{top1}' for s in grid]
    (folder / 'records.csv').write_text('\n'.join(lines) + '\n')
    return folder


def check_starts(module, study, stock):
    """A trained network is sorted in three ways, which predict the same."""
    files = [
        torch.load(study.out / f'{name}_seed0.pth', weights_only=False)
        for name in module.STARTS
    ]
    shown = 'backbone.conv1.weight'
    weights = [file['state_dict'][shown] for file in files]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    results = []
    for start in module.STARTS:
        run = module.Run(start, 0, 0.0, 0)
        study._do(run, 39, 38)
        results.append({str(s): v for s, v in study.result(run).items()})
    assert [*results[0]] == list(SUBNETS)
    full = [result['1.0x-16'] for result in results]
    assert full == [study.result(stock)[Subnet(1.0, 16)]] * 3


def test_digits(modules, tmp_path, monkeypatch):
    """A stock network, which is sorted; then what starts from it."""
    module = modules[0]
    monkeypatch.setattr(module.Digits, 'lengths', (1, 2))
    monkeypatch.setattr(module.Digits, 'both_rates_at', (2,))
    study = module.Digits(tmp_path)
    monkeypatch.setattr(
        study, 'stock_run', lambda seed: module.Run('stock', 1, 0.1, seed)
    )
    runs = study.planned()
    # For each of 3 seeds: the stock network; 3 tests; 4 starts, of the
    # second length at both rates. Those from scratch wait for nothing.
    assert len(runs) == 3 * (1 + 3 + 4 + 8)
    assert runs.count(None) == 3 * (3 + 3 + 6)
    stock = runs[0]
    assert study._do(stock, 48, 48)
    assert study.result(stock)[Subnet(1.0, 16)] > 5  # percent
    started = [run for run in study.planned() if run is not None]
    assert len(started) == len(runs) - runs.count(None) + 12
    check_starts(module, study, stock)
    cfg = study.config(module.Run('bn', 2, 0.03, 0), tmp_path)
    assert cfg.load_from == str(tmp_path / 'bn_seed0.pth')
    assert cfg.optim_wrapper.optimizer.lr == 0.03
    assert cfg.param_scheduler.T_max == cfg.train_cfg.max_epochs == 2
    cfg = study.config(module.Run('scratch', 2, 0.1, 0), tmp_path)
    assert cfg.get('load_from') is None


def test_cifar10(modules, claim, tmp_path, monkeypatch):
    """The claim's weights where they are, else its own of the same run."""
    module = modules[0]
    monkeypatch.setattr(module, 'EPOCHS', 2)
    records = claim / 'records.csv'
    study = module.Cifar10(tmp_path, claim, records)
    assert study.rates == dict(scratch=0.3, warm=0.1)
    stock, *others = study.planned()[:16]
    assert str(stock) == 'stock_2e_lr0.1_seed0'
    assert sum(run is not None for run in others) == 3  # from scratch
    assert study._do(stock, 48, 48)
    check_starts(module, study, stock)
    run = module.Run('unsorted', 2, 0.1, 0)
    assert study._do(run, 48, 40) and len(study.result(run)) == 2
    # Weights of the claim: those of this run, but for the classifier.
    file = torch.load(tmp_path / 'unsorted_seed0.pth', weights_only=False)
    weights = file['state_dict']
    weights['head.fc.bias'] += 1000 * torch.arange(10)
    folder = claim / 'runs/cifar10_alone-1.0x-16_2e_lr0.1_seed0'
    folder.mkdir(parents=True)
    torch.save(weights, folder / 'weights.pt')
    other = module.Cifar10(tmp_path / 'other', claim, records)
    assert other._do(stock, 48, 48)
    # The last class is the answer to every image: two of 20 are right.
    assert other.result(stock) == {Subnet(1.0, 16): 10.0}
    other._do(module.Run('l1', 0, 0.0, 0), 48, 47)
    assert other.result(module.Run('l1', 0, 0.0, 0))[Subnet(0.5, 12)] == 10


def test_no_claim(modules, tmp_path):
    with pytest.raises(UsageError, match='no images or no learning rates'):
        modules[0].Cifar10(tmp_path, tmp_path / 'nothing')


def test_report(modules, tmp_path, monkeypatch):
    """Each start at its rate; differences of seeds that both have."""
    module, report = modules
    study = module.Digits(tmp_path)
    gains = {'scratch': -20, 'unsorted': 0, 'l1': 1, 'bn': 2, 'stock': 5}

    def result(run):
        if (run.start, run.seed) == ('bn', 2):
            return None
        value = 60 + gains[run.start] + run.epochs + run.seed
        if run.start == 'bn':
            value += run.seed
        wrong = run.epochs and run.rate != study.rate(run.start)
        return {Subnet.parse(s): value - 30 * wrong for s in SUBNETS}

    monkeypatch.setattr(study, 'result', result)
    made = report.WarmStartReport(study)
    lines = made.tables().splitlines()
    table = [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in lines
        if line.startswith('|')
    ]
    name = report.NAMES
    assert ['10', name['unsorted'], '0.03', *['71.0 ± 1.0'] * 2] in table
    assert ['5', name['unsorted'], '0.1', *['36.0 ± 1.0'] * 2] in table
    # Of two seeds 2 and 3: Student's t of one degree of freedom is 12.706.
    for epochs in ('0', '5', '20'):
        cells = [epochs, name['bn'], name['unsorted'], *['+2.5 ± 6.4'] * 2]
        assert cells in table
    assert ['1', name['bn'], name['scratch'], *['+22.5 ± 6.4'] * 2] in table
    made.draw(tmp_path / 'figure.png')
    assert (tmp_path / 'figure.png').stat().st_size > 10000
