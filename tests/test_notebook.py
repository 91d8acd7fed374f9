"""The tour: what is kept of it, and that it runs."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / 'demo/mutualnet_tour.ipynb'
CELLS = json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells']
CODE = [''.join(c['source']) for c in CELLS if c['cell_type'] == 'code']


def test_outputs_are_stripped():
    for cell in CELLS:
        if cell['cell_type'] == 'code':
            assert cell['outputs'] == [] and cell['execution_count'] is None
            assert not cell['metadata']


@pytest.mark.parametrize('source', CODE, ids=range(len(CODE)))
def test_cells_are_python(source):
    compile(source, str(NOTEBOOK), 'exec')


def test_links_lead_somewhere():
    text = ''.join(''.join(cell['source']) for cell in CELLS)
    links = re.findall(r'\]\(([^)]+)\)', text)
    assert links
    for link in links:
        assert (NOTEBOOK.parent / link.partition('#')[0]).is_file(), link


@pytest.mark.nightly
@pytest.mark.subprocess
def test_it_runs(tmp_path, monkeypatch):
    """From the first cell to the last; what it shows is what it says."""
    nbformat = pytest.importorskip('nbformat')
    nbclient = pytest.importorskip('nbclient')
    pytest.importorskip('ipykernel')
    for name in ('mmpretrain', 'sklearn', 'matplotlib'):
        pytest.importorskip(name)
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, paths)))
    shutil.copy(NOTEBOOK, tmp_path)
    notebook = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(
        notebook,
        timeout=1200,
        kernel_name='python3',
        resources=dict(metadata=dict(path=str(tmp_path))),
    ).execute()
    shown = '\n'.join(
        output.get('text', '')
        for cell in notebook.cells
        if cell.cell_type == 'code'
        for output in cell.outputs
    )
    rows = re.findall(r'^[* ] (\S+) +([\d.]+) MMACs ', shown, re.M)
    macs = {subnet: float(cost) for subnet, cost in rows}
    assert len(macs) == 12
    budgets = re.findall(r'at most ([\d.]+) MMACs: (\S+), which', shown)
    assert len(budgets) == 3
    for budget, subnet in budgets:
        assert macs[subnet] <= float(budget)
    assert 'the least is macs=277,728 of 0.25x-16' in shown
    digits = re.findall(r'^\d: read as \d by (\S+)$', shown, re.M)
    assert len(digits) == 10 and set(digits) <= set(macs)
