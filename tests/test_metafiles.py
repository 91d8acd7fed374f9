"""model-index.yml and the metafiles: whole, true, and readable by others."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging_tree import ROOT

sys.path.insert(0, str(ROOT / 'projects'))
import metafiles  # noqa: E402

INDEX = ROOT / 'model-index.yml'
# Cheap to build, of every task, with and without recorded runs.
SAMPLE = {
    'classification/mutual-resnet14_1xb64_digits.py': None,
    'classification/mutual-wrn10-2_1xb64_cifar10-16px.py': None,
    'video/mutual-slow-r10_1xb10_fight-64px.py': 'mmaction',
    'detection/mutual-yolox-thin_1xb8_digits.py': 'mmdet',
}


def load(path):
    return yaml.safe_load((ROOT / path).read_text(encoding='utf-8'))


def models():
    return [m for path in load(INDEX)['Import'] for m in load(path)['Models']]


def test_every_config_is_listed_once():
    listed = [model['Config'] for model in models()]
    there = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / 'configs').rglob('*.py')
        if '_base_' not in path.parts
    ]
    assert sorted(listed) == sorted(there), (
        'run projects/metafiles.py --keep-costs'
    )


def test_names_and_methods():
    names = [model['Name'] for model in models()]
    assert len(names) == len(set(names))
    for path in load(INDEX)['Import']:
        content = load(path)
        known = {about['Name'] for about in content['Collections']}
        assert known == {m['In Collection'] for m in content['Models']}
        assert (ROOT / path).parent.name in metafiles.FOLDERS


def test_figures_are_whole():
    for model in models():
        about = model['Metadata']
        assert about['FLOPs'] > about.get('Smallest FLOPs', 0) > -1
        assert about['Parameters'] > about.get('Smallest Parameters', 0) > -1
        for result in model.get('Results', []):
            assert result['Metrics'] and result['Dataset'] and result['Task']


def test_costs_are_those_of_the_heads_of_configs():
    seen = 0
    for model in models():
        text = (ROOT / model['Config']).read_text(encoding='utf-8')
        head = ast.get_docstring(ast.parse(text)) or ''
        line = ' '.join(
            head.partition('Cost: ')[2].partition('MACs')[0].split()
        )
        stated = re.findall(r'(\d\S*x-\S+) ([\d.]+) ([GMK])', line)
        about = model['Metadata']
        listed = {
            about[f'{prefix}Subnet']: about[f'{prefix}FLOPs']
            for prefix in ('', 'Smallest ')
            if f'{prefix}FLOPs' in about
        }
        for subnet, value, unit in stated:
            size = dict(G=1e9, M=1e6, K=1e3)[unit]
            error = 0.05 if '.' in value else 0.5
            assert abs(listed[subnet] / size - float(value)) <= error, model
            seen += 1
    assert seen > 40


def test_results_are_those_of_the_recorded_runs():
    """As the script would write them today."""
    for model in models():
        found = metafiles.results(ROOT / model['Config'])
        assert model.get('Results', []) == found, (
            'run projects/metafiles.py --keep-costs'
        )


def test_recorded_figures():
    """Means over seeds and folds, against figures computed by hand."""
    found = {model['Name']: model.get('Results') for model in models()}
    cifar = found['mutual-wrn10-2_1xb64_cifar10-16px'][0]['Metrics']
    clips = found['mutual-slow-r10_1xb10_fight-64px'][0]['Metrics']
    rtmdet = found['mutual-rtmdet-thin_1xb8_digits'][0]['Metrics']
    text = (ROOT / 'docs/results/cifar10.csv').read_text().splitlines()
    rows = [row.split(',') for row in text]
    full = [
        float(row[-1])
        for row in rows
        if row[0] == 'mutualnet' and row[1] == '64' and row[4] == '1.0x-16'
    ]
    assert len(full) == 3
    assert cifar['Top 1 Accuracy'] == pytest.approx(sum(full) / 3, abs=0.005)
    assert clips['Top 1 Accuracy'] == 59.0  # 59 of 100 clips
    assert rtmdet == {'box AP': 81.3, 'box AP of 0.25x-128': 74.0}


def test_a_run_in_the_zoo_is_read(tmp_path, monkeypatch):
    from mutualnet_mm import Subnet
    from mutualnet_mm.query_table import QueryTable, TableEntry, save_table

    entries = [
        TableEntry(Subnet.parse(s), macs, 10, metrics={'accuracy/top1': top})
        for s, macs, top in (('1.0x-16', 9, 98.0), ('0.5x-8', 3, 90.0))
    ]
    subnet = Subnet.parse('1.0x-16')
    table = QueryTable(entries, 'accuracy/top1', 'classification', subnet)
    monkeypatch.setattr(metafiles, 'ZOO', tmp_path)
    path = ROOT / 'configs/classification/mutual-resnet14_1xb64_digits.py'
    assert metafiles.results(path) == []
    (tmp_path / path.stem).mkdir()
    save_table(table, tmp_path / path.stem / 'table.json')
    (found,) = metafiles.results(path)
    assert found['Dataset'] == 'Handwritten digits'
    assert found['Metrics'] == {
        'Top 1 Accuracy': 98.0,
        'Top 1 Accuracy of 0.5x-8': 90.0,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=[pytest.mark.nightly] if i > 1 else [])
        for i, name in enumerate(SAMPLE)
    ],
)
def test_entries_are_what_the_script_writes(name):
    pytest.importorskip(SAMPLE[name] or 'mmpretrain')
    path = ROOT / 'configs' / name
    listed = {model['Config']: model for model in models()}
    config = path.relative_to(ROOT).as_posix()
    assert metafiles.entry(path) == listed[config]
    # Known costs are kept, the rest is read anew.
    changed = {**listed[config], 'Metadata': {'FLOPs': 1, 'Epochs': -1}}
    kept = metafiles.entry(path, changed)['Metadata']
    assert kept['FLOPs'] == 1 and kept['Epochs'] > 0


def test_files_are_as_the_script_writes_them():
    for path in [INDEX, *load(INDEX)['Import']]:
        text = (ROOT / path).read_text(encoding='utf-8')
        assert text == metafiles.written(load(path)), path


def test_mmengine_reads_them(tmp_path):
    from mmengine.config.utils import _get_cfg_metainfo

    (tmp_path / '.mim').symlink_to(ROOT, target_is_directory=True)
    for model in models():
        name = model['Config'].partition('/')[2]
        assert _get_cfg_metainfo(str(tmp_path), name) == model


def test_modelindex_reads_them():
    modelindex = pytest.importorskip('modelindex')
    index = modelindex.load(str(INDEX))
    assert not index.check(silent=True)
    assert len(index.models) == len(models())
    by_name = {model.name: model for model in index.models}
    for model in models():
        read = by_name[model['Name']]
        assert read.metadata.data['FLOPs'] == model['Metadata']['FLOPs']
        assert Path(ROOT / read.config).is_file()
