"""The zoo: its records, its page, and the networks that are kept in demo/."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from mutualnet_mm import Subnet
from mutualnet_mm.apis import (
    AdaptiveModel,
    build_model,
    count_macs,
    load_table,
)
from mutualnet_mm.config import find_views, load_config
from mutualnet_mm.files import atomic_write

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / 'zoo').glob('*.json'))
PROJECTS = dict(
    classification='mmpretrain', video='mmaction', detection='mmdet'
)


@pytest.fixture
def zoo(monkeypatch):
    """The modules of the script."""
    monkeypatch.syspath_prepend(str(ROOT / 'projects'))
    before = set(sys.modules)
    import zoo_models
    import zoo_records

    import zoo

    yield zoo, zoo_models, zoo_records
    for name in set(sys.modules) - before:
        if str(ROOT / 'projects') in str(
            getattr(sys.modules[name], '__file__', '')
        ):
            del sys.modules[name]


def read(path):
    return json.loads(path.read_text())


def test_each_record_is_of_a_network_of_the_script(zoo):
    _, models, _ = zoo
    assert RECORDS
    for path in RECORDS:
        record = read(path)
        model = models.MODELS[path.stem]
        assert record['name'] == path.stem
        assert record['config'] == f'configs/{model.config}'
        assert record['dataset'] == model.dataset


def test_the_page_says_what_the_records_say(zoo):
    _, _, records = zoo
    assert (ROOT / 'docs/zoo.md').read_text() == records.page()


@pytest.mark.parametrize('path', RECORDS, ids=lambda path: path.stem)
def test_records_and_tables_agree(path):
    record = read(path)
    table = load_table(ROOT / 'zoo/tables' / path.name)
    assert (record['metric'], record['num_images'], record['full']) == (
        table.metric,
        table.num_images,
        str(table.full),
    )
    assert record['subnets'] == [
        dict(
            subnet=str(entry.subnet),
            macs=entry.macs,
            params=entry.params,
            metrics=entry.metrics,
            pareto=entry in table.pareto,
        )
        for entry in table.entries
    ]
    assert record['training_seconds'] > 10
    assert len(record['commands']) == 3
    for file in record['files'].values():
        assert file['bytes'] > 1000 and len(file['sha256']) == 64


@pytest.mark.parametrize('path', RECORDS, ids=lambda path: path.stem)
def test_costs_are_those_of_the_config(path):
    record = read(path)
    pytest.importorskip(PROJECTS[record['config'].split('/')[1]])
    cfg = load_config(str(ROOT / record['config']), stages=())
    model, shape = build_model(cfg), find_views(cfg).shape
    for entry in record['subnets'][:: len(record['subnets']) - 1]:
        subnet = Subnet.parse(entry['subnet'])
        assert count_macs(model, subnet, shape) == entry['macs']


KEPT = {
    'digits_adaptive.pth': 'mutual-resnet14_1xb64_cluttered-digits',
    'cifar10_adaptive.pth': 'mutual-wrn10-2_1xb64_cifar10-16px',
}


@pytest.mark.parametrize('name', KEPT)
def test_files_of_weights_are_the_recorded_ones(name):
    content = (ROOT / 'demo' / name).read_bytes()
    about = read(ROOT / f'zoo/{KEPT[name]}.json')['files']['adaptive.pth']
    assert len(content) == about['bytes'] < 2e6
    assert hashlib.sha256(content).hexdigest() == about['sha256']


def test_digits_within_budgets(tmp_path):
    """What it answers on images that it was not trained on."""
    pytest.importorskip('mmpretrain')
    pytest.importorskip('sklearn')
    from mutualnet_mm.datasets.cluttered_digits import make_cluttered_digits

    data = make_cluttered_digits(tmp_path / 'data', num_train=0, num_val=300)
    files = sorted((data / 'val').rglob('*.png'))
    truth = [int(file.parent.name) for file in files]
    net = AdaptiveModel.from_file(ROOT / 'demo/digits_adaptive.pth')
    entries = {entry.subnet: entry for entry in net.table.entries}
    for budget in (8e6, 1.2e6, 0.3e6):
        subnet = net.set_budget(macs=budget)
        entry = entries[subnet]
        assert entry.macs <= budget
        found = net([str(file) for file in files], batch_size=100)
        right = [f.pred_label.item() == t for f, t in zip(found, truth)]
        # Three standard deviations of 300 images, and the table's interval.
        top1 = 100 * sum(right) / len(right)
        assert abs(top1 - net.table.score(entry)) < 10
    assert net.set_budget(macs=8e6) == Subnet(1.0, 32)
    (image,) = net([str(ROOT / 'demo/digit.png')])
    assert image.pred_label.item() == 4


def test_trains_builds_and_records(zoo, tmp_path, monkeypatch):
    """The commands are the recorded ones; nothing is trained here."""
    script, models, records = zoo
    name = 'mutual-resnet14_1xb64_cluttered-digits'
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, 'make_cluttered_digits', lambda path: None)
    ran, written = [], []
    out = Path('work_dirs/zoo') / name

    def run(command):
        ran.append(command)
        (tmp_path / out).mkdir(parents=True, exist_ok=True)
        with atomic_write(tmp_path / out / 'last_checkpoint') as file:
            file.write(str(tmp_path / out / 'epoch_10.pth').encode())

    monkeypatch.setattr(script, '_run', run)
    monkeypatch.setattr(script, 'write_record', lambda *a: written.append(a))
    script.make(models.MODELS[name], None)
    ((_, commands, folder, checkpoint),) = written
    assert folder == out and checkpoint.name == 'epoch_10.pth'
    record = read(ROOT / 'zoo' / f'{name}.json')
    assert commands == record['commands']
    assert ran[0][-1] == '--resume' and ran[1][0] == 'tools/build_table.py'


def test_data_that_are_missing(zoo):
    script, models, _ = zoo
    from mutualnet_mm import UsageError

    with pytest.raises(UsageError, match='needs --data: .*CIFAR-10'):
        script.make(models.MODELS['mutual-wrn10-2_1xb64_cifar10-16px'], None)
