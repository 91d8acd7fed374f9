"""Each config begins with its command, what it reproduces and its cost."""

import ast
import re
import runpy

import pytest
from pages import ROOT

COSTS = runpy.run_path(str(ROOT / 'docs/make_config_costs.py'))
FILES = COSTS['find_configs']()


def header(file):
    return ast.get_docstring(ast.parse(file.read_text(encoding='utf-8')))


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_header(file):
    text = header(file)
    assert len(text.splitlines()) <= 20
    command = r'mutualnet(_mm)? (train|test|quickstart)|python projects/\w+'
    assert re.search(command, text), 'name the command'
    lines = text.splitlines()
    assert any(x.startswith(COSTS['SOURCE']) for x in lines), 'of what?'
    assert COSTS['COST'].search(text), 'run docs/make_config_costs.py'


@pytest.mark.sweep(3)
@pytest.mark.slow
@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_cost(file):
    project = dict(detection='mmdet', video='mmaction')
    pytest.importorskip(project.get(file.parent.name, 'mmpretrain'))
    if 'mask_rcnn' in file.stem or 'ava21' in file.stem:
        pytest.importorskip('mmdet')
    said = ' '.join(COSTS['COST'].search(header(file))[0].split())
    assert said == COSTS['cost_line'](file), 'run docs/make_config_costs.py'
